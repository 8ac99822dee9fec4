#include <algorithm>
#include <cstring>

#include "snapshot/layer.h"
#include "snapshot/layer_files.h"

namespace stasis::snapshot {
namespace {

Status check_within(const Extent& extent, const Layer& layer) {
  if (extent.layer_offset <= layer.size() && extent.length <= layer.size() - extent.layer_offset) return {};
  return fail(Code::kDataLoss, "the extent at " + std::to_string(extent.offset) + " lies behind the end of layer " +
                                   layer.id().text() + ", which has " + std::to_string(layer.size()) + " bytes");
}

// A file that is open can be read though the store has it no more; a map that is to be kept must not name it.
Status check_there(FileSystem& fs, const Path& layers_dir, LayerId id) {
  auto file = find_layer(fs, layers_dir, id);
  if (file) return {};
  return fail(lost_layer(std::move(file).error(), id));
}

}  // namespace

AddressSpace::AddressSpace(BlockMap map, std::vector<std::shared_ptr<Layer>> layers)
    : map_(std::move(map)), layers_(std::move(layers)) {}

Result<std::shared_ptr<AddressSpace>> AddressSpace::open(FileSystem& fs, const Path& layers_dir, BlockMap map,
                                                         const AddressSpace* before) {
  std::vector<std::shared_ptr<Layer>> layers;
  layers.reserve(map.layers().size());
  for (const LayerId id : map.layers()) {
    std::shared_ptr<Layer> layer = before == nullptr ? nullptr : before->share(id);
    if (layer) {
      STASIS_TRY(check_there(fs, layers_dir, id));
    } else {
      STASIS_ASSIGN(layer, Layer::open(fs, layers_dir, id));
    }
    layers.push_back(std::move(layer));
  }
  for (size_t i = 0; i < map.entries_.size(); ++i) {
    if (map.entries_[i].layer != 0) STASIS_TRY(check_within(map.extent_at(i), *layers[map.entries_[i].layer - 1]));
  }
  return std::shared_ptr<AddressSpace>(new AddressSpace(std::move(map), std::move(layers)));
}

Status AddressSpace::read(uint64_t offset, std::span<std::byte> out) const {
  if (offset > size() || out.size() > size() - offset) {
    return fail(Code::kOutOfRange, std::to_string(out.size()) + " bytes at " + std::to_string(offset) +
                                       " of an address space of " + std::to_string(size()));
  }
  if (out.empty()) return {};
  const auto whole = out;
  for (size_t index = map_.index_of(offset); !out.empty(); ++index) {
    const BlockMap::Entry& entry = map_.entries_[index];
    const auto piece = out.first(std::min<uint64_t>(out.size(), map_.end_of(index) - offset));
    if (entry.layer == 0) {
      std::memset(piece.data(), 0, piece.size());
    } else {
      if (Status status = layers_[entry.layer - 1]->read(BlockMap::offset_in_layer(entry, offset), piece); !status) {
        std::memset(whole.data(), 0, whole.size());
        return status;
      }
    }
    offset += piece.size();
    out = out.subspan(piece.size());
  }
  return {};
}

uint64_t AddressSpace::read_now(uint64_t offset, std::span<std::byte> out) const {
  uint64_t done = 0;
  for (size_t index = map_.index_of(offset); done < out.size(); ++index) {
    const BlockMap::Entry& entry = map_.entries_[index];
    const uint64_t at = offset + done;
    const auto piece = out.subspan(done, std::min<uint64_t>(out.size() - done, map_.end_of(index) - at));
    uint64_t here = piece.size();
    if (entry.layer == 0) {
      std::memset(piece.data(), 0, piece.size());
    } else {
      here = layers_[entry.layer - 1]->read_now(BlockMap::offset_in_layer(entry, at), piece);
    }
    done += here;
    if (here < piece.size()) break;
  }
  return done;
}

std::optional<AddressSpace::FramePlace> AddressSpace::frame_at(uint64_t offset) const {
  const size_t index = map_.index_of(offset);
  const BlockMap::Entry& entry = map_.entries_[index];
  if (entry.layer == 0) return std::nullopt;
  const uint64_t start = entry.first_block * kBlockSize;
  const uint64_t in_layer = BlockMap::offset_in_layer(entry, offset);
  const uint64_t before = std::min(in_layer % kFrameSize, offset - start);
  const uint64_t end = std::min(offset - in_layer % kFrameSize + kFrameSize, map_.end_of(index));
  const FrameRef frame{entry.layer - 1, static_cast<uint32_t>(in_layer / kFrameSize)};
  return FramePlace{frame, {offset - before, end - (offset - before)}, layers_[frame.layer]->is_verified(frame.frame)};
}

Status AddressSpace::load(FrameRef frame) const { return layers_[frame.layer]->load(frame.frame); }

std::string AddressSpace::describe(FrameRef frame) const {
  return "frame " + std::to_string(frame.frame) + " of layer " + layers_[frame.layer]->id().text();
}

std::span<const std::byte> AddressSpace::view(uint64_t offset, uint64_t length) const {
  const BlockMap::Entry& entry = map_.entries_[map_.index_of(offset)];
  return layers_[entry.layer - 1]->view(BlockMap::offset_in_layer(entry, offset), length);
}

std::span<const std::byte> AddressSpace::view_for_kernel(uint64_t offset, uint64_t length) const {
  const size_t index = map_.index_of(offset);
  const BlockMap::Entry& entry = map_.entries_[index];
  if (entry.layer == 0 || length > map_.end_of(index) - offset) return {};
  return layers_[entry.layer - 1]->view_for_kernel(BlockMap::offset_in_layer(entry, offset), length);
}

Layer* AddressSpace::layer(LayerId id) const { return share(id).get(); }

std::shared_ptr<Layer> AddressSpace::share(LayerId id) const {
  const auto ids = map_.layers();
  const auto found = std::find(ids.begin(), ids.end(), id);
  return found == ids.end() ? nullptr : layers_[static_cast<size_t>(found - ids.begin())];
}

}  // namespace stasis::snapshot
