// The checksums of a layer: one for each frame of 64 KiB that holds data; and the file that keeps those of a raw layer
// beside it (`<uuid>.sums`, docs/format.md). A frame's checksum covers the whole frame, holes as zeros; the last frame
// ends with the layer.
#pragma once

#include <algorithm>
#include <optional>
#include <span>
#include <vector>

#include "snapshot/checksum.h"
#include "snapshot/frame_checksum.h"
#include "snapshot/layer.h"

namespace stasis::snapshot {

inline uint64_t frame_count(uint64_t layer_size) { return (layer_size + kFrameSize - 1) / kFrameSize; }

struct LayerSums {
  LayerId id;
  uint64_t size = 0;                // bytes of the layer
  uint64_t data_bytes = 0;          // bytes of the blocks in it
  std::vector<uint32_t> frames;     // ascending
  std::vector<uint64_t> checksums;  // of frames, in the same order

  LayerInfo info() const { return {id, size, data_bytes}; }
  // What is wrong with these tables; empty: nothing.
  std::string fault() const;
  Range frame_range(uint32_t frame) const;
  // Where `frame` is in the tables; nullopt if the layer holds nothing there. O(log n), O(1) where every frame is
  // there.
  std::optional<size_t> find(uint32_t frame) const;

  std::vector<std::byte> encode() const;
  // kDataLoss for anything that is not whole and consistent.
  static Result<LayerSums> decode(std::span<const std::byte> bytes);
  // The same for who keeps `bytes`, which begin at a multiple of 8: `checksums` stays empty, and checksums_in() of the
  // same bytes has them.
  static Result<LayerSums> decode_frames(std::span<const std::byte> bytes);
  std::span<const uint64_t> checksums_in(std::span<const std::byte> bytes) const;
};

// Computes the table from data that comes in ascending order.
class FrameHasher {
 public:
  FrameHasher(LayerId id, uint64_t size) {
    sums_.id = id, sums_.size = size;
    // Growing to the frames of 1 GiB would allocate as much again.
    const uint64_t room = std::min<uint64_t>(frame_count(size), 16 << 10);
    sums_.frames.reserve(room), sums_.checksums.reserve(room);
  }
  void add(uint64_t offset, std::span<const std::byte> data);
  // The whole table; nothing may be added afterwards.
  LayerSums finish();

 private:
  void close_frame();

  LayerSums sums_;
  std::optional<FrameChecksum> begun_;  // of a frame that came in part so far
  uint32_t frame_ = 0;                  // its number
};

// Writes the sums file of a layer under a temporary name, synced and read-only: rename it to publish.
Status write_sums(FileSystem& fs, const Path& temporary, const LayerSums& sums);

}  // namespace stasis::snapshot
