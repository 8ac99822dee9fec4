// Capture: from "these ranges may have changed" to a new layer and the next block map. Each candidate block is compared
// with its parent; equal blocks are dropped, blocks of zeros become zero changes (and cost nothing where the parent is
// zero already), the rest is written to a new layer. So a layer holds exactly the blocks that changed, whatever
// over-reported them.
#pragma once

#include <optional>
#include <span>

#include "base/memory_source.h"
#include "snapshot/layer.h"

namespace stasis::snapshot {

struct CaptureSource {
  const MemorySource& memory;         // the address space. A hole in its file stays one
  std::span<const Range> candidates;  // sorted, disjoint, multiples of kBlockSize: read from `memory`
  std::span<const Range> removed;     // sorted, disjoint: known to read as zeros now (not read); a block named by both
                                      // is taken from `candidates`
  // The whole address space where the caller has it mapped already: it is taken from there and `memory` is not read,
  // which spares a copy of all candidates. It must not change meanwhile: what is checksummed is written afterwards.
  std::span<const std::byte> in_place = {};
};

struct CaptureResult {
  BlockMap map;                    // the next generation
  std::optional<LayerInfo> layer;  // absent if no block had to be stored
  uint64_t blocks_compared = 0;
  uint64_t blocks_stored = 0;        // in the new layer
  uint64_t blocks_zeroed = 0;        // were data in the parent, are zeros now
  uint64_t blocks_incomparable = 0;  // the parent's are damaged or cannot be read: taken as changed
};

// On failure nothing stays behind in layers_dir. `base` is the parent: an AddressSpace of the same size.
Result<CaptureResult> capture(FileSystem& fs, const Path& layers_dir, const CaptureSource& source,
                              const AddressSpace& base);

}  // namespace stasis::snapshot
