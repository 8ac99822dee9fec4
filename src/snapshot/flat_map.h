// The block map of an address space of which one layer holds everything, put together as what is live comes.
#pragma once

#include <vector>

#include "snapshot/block_map.h"

namespace stasis::snapshot {

class FlatMap {
 public:
  FlatMap(const BlockMap::Metadata& metadata, LayerId layer) : metadata_(metadata), layer_(layer) {}

  // Whole blocks, behind all before. kResourceExhausted if a block map does not hold so many extents: what is not live
  // between two runs is one too.
  Status append(Range run);
  bool empty() const { return runs_.empty(); }
  Result<BlockMap> finish() const;

 private:
  BlockMap::Metadata metadata_;
  LayerId layer_;
  std::vector<Range> runs_;  // none continues the one before
  uint64_t extents_ = 0;     // up to the end of the last
};

}  // namespace stasis::snapshot
