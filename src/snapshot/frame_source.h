// Where frames come from that are not here yet: a disk that is slow today, or another machine. Layers read what they
// have (layer.h); a FrameSource brings what they have not, and whoever cannot wait for that asks a FrameFetcher
// (frame_fetcher.h) to do it.
#pragma once

#include <compare>
#include <cstdint>
#include <string>

#include "base/result.h"

namespace stasis::snapshot {

// One frame of one of the layers that belong together (those of an address space, by their place in its map's
// layers()).
struct FrameRef {
  uint32_t layer = 0;
  uint32_t frame = 0;  // number in the layer: offset / kFrameSize
  friend auto operator<=>(const FrameRef&, const FrameRef&) = default;
};

class FrameSource {
 public:
  virtual ~FrameSource() = default;
  // Returns once the frame is here and verified: it can then be read without waiting. May take as long as it takes. Any
  // number of threads.
  virtual Status load(FrameRef frame) const = 0;
  // "frame 3 of layer <uuid>", for messages.
  virtual std::string describe(FrameRef frame) const = 0;
};

}  // namespace stasis::snapshot
