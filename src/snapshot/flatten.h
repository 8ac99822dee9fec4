// Reading what a block map uses, in the order of the address space: verified, in large pieces, zeros left out. The base
// of compaction and export.
//
// A compaction asks for a huge page at a time and writes it at once: a file system with large folios (XFS, ext4 since
// Linux 6.16) then has it in the page cache as one, and a private mapping of it takes one page fault and one entry of a
// page table. Of a file of 1 GiB on ext4 all pages are touched in 5 ms instead of the 55 if it is written in pieces of
// 64 KiB, and what a process has written of it is found in 0.2 ms instead of 6.5. What is captured while somebody waits
// is not written so: where the host is itself a guest whose free huge pages its own host takes back (virtio-balloon
// reports them), the first use of one costs 4 ms, and a pause with 160 MiB to write took 0.2 to 0.6 s instead of 0.18.
#pragma once

#include <functional>
#include <memory>
#include <unordered_map>
#include <vector>

#include "base/rate_limit.h"
#include "snapshot/layer.h"

namespace stasis::snapshot {

inline constexpr uint64_t kHugePageSize = 2 << 20;  // bytes

class Flattener {
 public:
  // Gets each run of live blocks, ascending, cut at multiples of the window.
  using Sink = std::function<Status(uint64_t offset, std::span<const std::byte> data)>;

  // `window`: bytes, a multiple of kFrameSize.
  Flattener(const AddressSpace& space, RateLimit& limit, uint64_t window);

  // Everything from `from` (a multiple of the window) on. Stops at the first error, also of `sink`.
  Status run(uint64_t from, const Sink& sink);
  uint64_t read_bytes() const { return read_bytes_; }

 private:
  struct Piece {
    Layer* layer;
    uint64_t layer_offset;
    uint64_t length;
    uint64_t at;  // in the window
  };

  Status window(Range range, const Sink& sink);
  void collect(Range range);
  // Reads pieces [first, last), which lie in frames of one layer that follow each other.
  Status read(size_t first, size_t last);
  Status hand_over(Range range, const Sink& sink) const;

  const AddressSpace& space_;
  RateLimit& limit_;
  const uint64_t window_;
  std::unordered_map<Uuid, Layer*> layers_;
  std::vector<Piece> pieces_;   // of the window, by layer and offset in it
  std::vector<Range> live_;     // of the window, in the address space; neighbours joined
  std::vector<std::byte> out_;  // the window
  std::vector<std::byte> scratch_;
  uint64_t read_bytes_ = 0;
};

}  // namespace stasis::snapshot
