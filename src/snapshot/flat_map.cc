#include "snapshot/flat_map.h"

namespace stasis::snapshot {

Status FlatMap::append(Range run) {
  const uint64_t end = runs_.empty() ? 0 : runs_.back().end();
  if (!runs_.empty() && run.offset == end) {
    runs_.back().length += run.length;
    return {};
  }
  extents_ += run.offset > end ? 2 : 1;
  if (extents_ > kMaxExtents) {
    return fail(Code::kResourceExhausted, "an address space has more extents than a block map holds: the limit is " +
                                              std::to_string(kMaxExtents));
  }
  runs_.push_back(run);
  return {};
}

Result<BlockMap> FlatMap::finish() const {
  std::vector<Extent> extents;
  extents.reserve(extents_ + 1);
  uint64_t position = 0;
  for (const Range& run : runs_) {
    if (run.offset > position) extents.push_back({position, run.offset - position, {}, 0});
    extents.push_back({run.offset, run.length, layer_, run.offset});
    position = run.end();
  }
  if (position < metadata_.size) extents.push_back({position, metadata_.size - position, {}, 0});
  return BlockMap::from_extents(metadata_, extents);
}

}  // namespace stasis::snapshot
