// Laying changes over a block map: one pass over both, old extents between changes copied in bulk.
#include <algorithm>

#include "snapshot/block_map_builder.h"

namespace stasis::snapshot {
namespace {

Status check(std::span<const Change> changes, uint64_t size, LayerId layer) {
  uint64_t position = 0;
  for (const Change& change : changes) {
    const char* fault = nullptr;
    if (change.range.offset < position) fault = "overlaps the one before or is out of order";
    if (change.range.offset % kBlockSize != 0 || change.range.length % kBlockSize != 0)
      fault = "is not of whole blocks";
    if (change.range.length == 0) fault = "is empty";
    if (change.range.offset > size || change.range.length > size - change.range.offset) {
      fault = "ends behind the address space";
    }
    if (!change.zero && layer.is_nil()) fault = "has data and no layer";
    if (fault != nullptr) {
      return fail(Code::kInvalidArgument, "the change at " + std::to_string(change.range.offset) + " " + fault);
    }
    position = change.range.end();
  }
  return {};
}

// The first from `begin` on that is not `before`, in steps that double: the next change is near, and what is passed
// over is copied afterwards anyway.
template <typename Iterator, typename Before>
Iterator gallop(Iterator begin, Iterator end, Before before) {
  ptrdiff_t step = 1;
  while (step < end - begin && before(begin[step])) {
    begin += step;
    step *= 2;
  }
  return std::partition_point(begin, begin + std::min<ptrdiff_t>(step, end - begin), before);
}

}  // namespace

Result<BlockMap> BlockMap::merge(LayerId layer, std::span<const Change> changes) const {
  STASIS_TRY(check(changes, size(), layer));
  BlockMap map;
  // zeros() is the state before anything was stored: the first map made from it is generation 0.
  const bool first_stored = metadata_.id.is_nil();
  map.metadata_ = {size(), first_stored ? 0 : metadata_.generation + 1, Uuid::random(), metadata_.id};
  map.layers_ = layers_;
  const auto known = std::find(layers_.begin(), layers_.end(), layer);
  const uint32_t layer_index = static_cast<uint32_t>(known - layers_.begin()) + 1;
  if (known == layers_.end()) map.layers_.push_back(layer);

  Builder builder;
  builder.entries.reserve(entries_.size() + 2 * changes.size());
  uint64_t position = 0;  // blocks; everything before it is in the builder
  const auto copy_old_until = [&](uint64_t end) {
    if (position == end) return;
    const size_t at = index_of(position * kBlockSize);
    Entry first = entries_[at];
    if (first.layer != 0) first.layer_block += static_cast<uint32_t>(position - first.first_block);
    first.first_block = static_cast<uint32_t>(position);
    builder.append(first);
    const auto begin = entries_.begin() + static_cast<ptrdiff_t>(at) + 1;
    const auto stop = gallop(begin, entries_.end(), [&](const Entry& e) { return e.first_block < end; });
    builder.entries.insert(builder.entries.end(), begin, stop);
    position = end;
  };
  for (const Change& change : changes) {
    const auto first_block = static_cast<uint32_t>(change.range.offset / kBlockSize);
    copy_old_until(first_block);
    builder.append({first_block, change.zero ? 0 : layer_index, change.zero ? 0 : first_block});
    position = change.range.end() / kBlockSize;
  }
  copy_old_until(size() / kBlockSize);
  map.entries_ = std::move(builder.entries);
  STASIS_TRY(map.seal());
  return map;
}

}  // namespace stasis::snapshot
