// Reading what a block map uses, in the order of the address space: verified, in large pieces, zeros left out. The base
// of compaction and export.
#pragma once

#include <functional>
#include <memory>
#include <unordered_map>
#include <vector>

#include "base/rate_limit.h"
#include "snapshot/layer.h"

namespace stasis::snapshot {

class Flattener {
 public:
  // Gets each run of live blocks, ascending; at most kWindow bytes at a time.
  using Sink = std::function<Status(uint64_t offset, std::span<const std::byte> data)>;
  static constexpr uint64_t kWindow = 1 << 20;

  Flattener(const AddressSpace& space, RateLimit& limit);

  // Everything from `from` (a multiple of kWindow) on. Stops at the first error, also of `sink`.
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
  std::unordered_map<Uuid, Layer*> layers_;
  std::vector<Piece> pieces_;   // of the window, by layer and offset in it
  std::vector<Range> live_;     // of the window, in the address space; neighbours joined
  std::vector<std::byte> out_;  // the window
  std::vector<std::byte> scratch_;
  uint64_t read_bytes_ = 0;
};

}  // namespace stasis::snapshot
