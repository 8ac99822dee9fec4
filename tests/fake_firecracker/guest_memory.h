// The double's guest memory: anonymous mappings, one region up to 3 GiB and a second for the rest, at unrelated host
// addresses. Offsets are those of memory files: contiguous over the regions. Tracks what was written, as KVM's dirty
// log would.
#pragma once

#include <cstdint>
#include <vector>

#include "base/file_system.h"
#include "base/memory.h"
#include "base/result.h"

namespace fake {

inline constexpr uint64_t kPage = 4096;
inline constexpr uint64_t kFirstRegionBytes = uint64_t{3} << 30;

struct MemoryRegion {
  stasis::Mapping mapping;
  uint64_t offset = 0;
};

class GuestMemory {
 public:
  static stasis::Result<GuestMemory> create(uint64_t bytes);
  // The `File` backend: from now on a private mapping of the file, which must be as long as the memory.
  stasis::Status map_file(const stasis::Path& file);

  uint64_t bytes() const { return bytes_; }
  const std::vector<MemoryRegion>& regions() const { return regions_; }
  std::byte* at(uint64_t offset) const;
  void mark_written(uint64_t offset, uint64_t length);
  // What a balloon does: MADV_DONTNEED on both region parts, anonymous memory in place of a mapped file.
  stasis::Status give_back(uint64_t offset, uint64_t length);

  // Full: every page. Diff: pages written since the last call; of a restored machine also those that were installed
  // since then. Clears the tracking.
  stasis::Status write_full(int fd);
  stasis::Status write_diff(int fd, bool restored);
  void forget_written() { written_.assign(written_.size(), false); }

 private:
  stasis::Status write_range(int fd, uint64_t offset, uint64_t length) const;
  std::vector<bool> resident() const;
  template <typename Wanted>
  stasis::Status write_pages(int fd, Wanted wanted);

  uint64_t bytes_ = 0;
  std::vector<MemoryRegion> regions_;
  std::vector<bool> written_;
  std::vector<bool> resident_before_;
  bool mapped_ = false;
};

}  // namespace fake
