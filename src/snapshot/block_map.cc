#include "snapshot/block_map.h"

#include <algorithm>
#include <unordered_map>

#include "snapshot/block_map_builder.h"

namespace stasis::snapshot {
namespace {

tl::unexpected<Error> bad_size(uint64_t size) {
  return fail(Code::kInvalidArgument, "an address space of " + std::to_string(size) +
                                          " bytes: its size must be a positive multiple of 4096, at most 16 TiB");
}

// What is wrong with an extent that must start at `position` of an address space of `size`; nullptr if nothing.
const char* fault_of(const Extent& extent, uint64_t position, uint64_t size) {
  if (extent.offset != position) return "does not start where the one before ends";
  if (extent.length == 0 || extent.length % kBlockSize != 0)
    return "has a length that is not a positive multiple of 4096";
  if (extent.length > size - position) return "ends behind the address space";
  if (extent.is_zero()) return extent.layer_offset == 0 ? nullptr : "is of zeros and has an offset in a layer";
  if (extent.layer_offset % kBlockSize != 0) return "has an offset in its layer that is not a multiple of 4096";
  if (extent.layer_offset > kMaxAddressSpace - extent.length) return "ends behind the limit of a layer";
  return nullptr;
}

}  // namespace

Result<BlockMap> BlockMap::zeros(uint64_t size) {
  if (!valid_size(size)) return bad_size(size);
  BlockMap map;
  map.metadata_ = {size, 0, Uuid{}, Uuid{}};
  map.entries_.push_back({0, 0, 0});
  STASIS_TRY(map.seal());
  return map;
}

Result<BlockMap> BlockMap::from_extents(const Metadata& metadata, std::span<const Extent> extents) {
  if (!valid_size(metadata.size)) return bad_size(metadata.size);
  BlockMap map;
  map.metadata_ = metadata;
  Builder builder;
  builder.entries.reserve(extents.size());
  std::unordered_map<Uuid, uint32_t> index_of_layer{{Uuid{}, 0}};
  uint64_t position = 0;
  for (const Extent& extent : extents) {
    if (const char* fault = fault_of(extent, position, metadata.size)) {
      return fail(Code::kInvalidArgument, "the extent at " + std::to_string(extent.offset) + " " + fault);
    }
    const auto [known, is_new] = index_of_layer.try_emplace(extent.layer.uuid, map.layers_.size() + 1);
    if (is_new) map.layers_.push_back(extent.layer);
    builder.append({static_cast<uint32_t>(position / kBlockSize), known->second,
                    static_cast<uint32_t>(extent.layer_offset / kBlockSize)});
    position = extent.end();
  }
  if (position != metadata.size) {
    return fail(Code::kInvalidArgument, "the extents end at " + std::to_string(position) + " of an address space of " +
                                            std::to_string(metadata.size) + " bytes");
  }
  map.entries_ = std::move(builder.entries);
  STASIS_TRY(map.seal());
  return map;
}

Result<BlockMap> BlockMap::grow(uint64_t new_size) const {
  if (!valid_size(new_size)) return bad_size(new_size);
  if (new_size < size()) {
    return fail(Code::kInvalidArgument, "an address space of " + std::to_string(size()) + " bytes cannot shrink to " +
                                            std::to_string(new_size));
  }
  BlockMap map = *this;
  if (new_size == size()) return map;
  Builder builder{std::move(map.entries_)};
  builder.append({static_cast<uint32_t>(size() / kBlockSize), 0, 0});
  map.entries_ = std::move(builder.entries);
  map.metadata_.size = new_size;
  if (!metadata_.id.is_nil()) map.metadata_.id = Uuid::random();
  STASIS_TRY(map.seal());
  return map;
}

Status BlockMap::seal() {
  if (entries_.size() > kMaxExtents) {
    return fail(Code::kResourceExhausted, "a block map of " + std::to_string(entries_.size()) +
                                              " extents: the limit is " + std::to_string(kMaxExtents));
  }
  // Many neighbours that were merged leave a table that is mostly reserve.
  if (entries_.capacity() - entries_.size() > entries_.size() / 8) entries_.shrink_to_fit();
  std::vector<uint8_t> used(layers_.size() + 1);
  index_.start(entries_.size(), size() / kBlockSize);
  auto index = index_.adder(0);
  for (const Entry& entry : entries_) {
    used[entry.layer] = 1;
    index.add(entry.first_block);
  }
  index_.finish();
  if (std::find(used.begin() + 1, used.end(), 0) != used.end()) drop_unused(used);
  if (layers_.size() > kMaxLayers) {
    return fail(Code::kResourceExhausted, "a block map of " + std::to_string(layers_.size()) +
                                              " layers: the limit is " + std::to_string(kMaxLayers));
  }
  return {};
}

void BlockMap::drop_unused(std::span<const uint8_t> used) {
  std::vector<uint32_t> new_index(layers_.size() + 1, 0);
  std::vector<LayerId> kept;
  for (size_t i = 0; i < layers_.size(); ++i) {
    if (used[i + 1] == 0) continue;
    kept.push_back(layers_[i]);
    new_index[i + 1] = static_cast<uint32_t>(kept.size());
  }
  for (Entry& entry : entries_) entry.layer = new_index[entry.layer];
  layers_ = std::move(kept);
}

std::vector<Extent> BlockMap::extents() const {
  std::vector<Extent> extents;
  extents.reserve(entries_.size());
  for (size_t i = 0; i < entries_.size(); ++i) extents.push_back(extent_at(i));
  return extents;
}

size_t BlockMap::extent_count() const { return entries_.size(); }

std::span<const LayerId> BlockMap::layers() const { return layers_; }

}  // namespace stasis::snapshot
