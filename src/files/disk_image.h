// A disk as it is once its journal has been replayed: an address space, and for some blocks of the file system the
// place in the journal that holds what they are now. Reads of any bytes; what is read lately is kept (16 MiB), since
// inodes and directories lie together in small pieces. One thread at a time.
#pragma once

#include <optional>
#include <vector>

#include "files/journal.h"
#include "snapshot/layer.h"

namespace stasis::files {

class DiskImage {
 public:
  // `space` outlives the image.
  explicit DiskImage(const snapshot::AddressSpace& space) : space_(space), windows_(kWindows) {}

  uint64_t size() const { return space_.size(); }
  // kOutOfRange behind the end; kDataLoss of a damaged frame.
  Status read(uint64_t offset, std::span<std::byte> out);

  // From now on a block (of `block_size` bytes) that `blocks` names reads as the bytes at its offset on this disk.
  struct Moved {
    uint64_t offset = 0;
    bool escaped = false;  // ReplayedBlock::escaped
  };
  void replay(uint32_t block_size, std::map<uint64_t, Moved> blocks);

 private:
  static constexpr uint64_t kWindow = snapshot::kFrameSize;
  static constexpr size_t kWindows = 256;
  struct Window {
    uint64_t offset = ~uint64_t{0};
    std::vector<std::byte> bytes;
  };
  // A piece of the disk that lies together, at most `length` bytes of it.
  struct Place {
    uint64_t offset = 0;  // in the address space
    uint64_t length = 0;
    bool escaped = false;  // its block is, and `begin` says where in the block this is
    uint64_t begin = 0;
  };
  Place place_of(uint64_t offset, uint64_t length) const;
  Status read_place(const Place& place, std::span<std::byte> out);
  Result<std::span<const std::byte>> window_at(uint64_t offset);

  friend Result<bool> same_bytes(DiskImage& a, uint64_t at_a, DiskImage& b, uint64_t at_b, uint64_t length);

  const snapshot::AddressSpace& space_;
  std::vector<Window> windows_;
  uint32_t block_size_ = 0;
  std::map<uint64_t, Moved> moved_;
};

// Whether two disks hold the same bytes at two places. What both take from the same bytes of the same layer, and zeros,
// is not read.
Result<bool> same_bytes(DiskImage& a, uint64_t at_a, DiskImage& b, uint64_t at_b, uint64_t length);

}  // namespace stasis::files
