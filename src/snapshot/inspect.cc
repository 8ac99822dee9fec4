#include "snapshot/inspect.h"

#include <algorithm>
#include <map>
#include <set>

namespace stasis::snapshot {
namespace {

// What is known of layers apart from the map that is looked at.
struct Known {
  std::map<LayerId, StoredLayer> stored;
  std::set<LayerId> shared;
  std::map<LayerId, uint64_t> generations;
};

void note_generations(const BlockMap& map, std::map<LayerId, uint64_t>& generations) {
  for (const LayerId id : map.layers()) {
    const auto [at, added] = generations.emplace(id, map.metadata().generation);
    if (!added) at->second = std::min(at->second, map.metadata().generation);
  }
}

// Where the bytes of each cell come from: walks the extents once, in order.
class Raster {
 public:
  Raster(uint64_t size, size_t cells, size_t layers)
      : cell_bytes_((size / kBlockSize + cells - 1) / cells * kBlockSize), bytes_(layers + 1) {
    cells_.reserve(cells);
  }

  void add(Range range, uint32_t source) {
    while (range.length > 0) {
      const uint64_t end = (cells_.size() + 1) * cell_bytes_;
      const uint64_t here = std::min(range.length, end - range.offset);
      if (bytes_[source] == 0) touched_.push_back(source);
      bytes_[source] += here;
      range = {range.offset + here, range.length - here};
      if (range.offset == end) close();
    }
  }
  std::vector<uint32_t> finish() {
    if (!touched_.empty()) close();
    return std::move(cells_);
  }

 private:
  void close() {
    cells_.push_back(*std::max_element(touched_.begin(), touched_.end(),
                                       [&](uint32_t a, uint32_t b) { return bytes_[a] < bytes_[b]; }));
    for (const uint32_t source : touched_) bytes_[source] = 0;
    touched_.clear();
  }

  uint64_t cell_bytes_;
  std::vector<uint64_t> bytes_;  // of the cell that is open, by source
  std::vector<uint32_t> touched_;
  std::vector<uint32_t> cells_;
};

std::vector<LayerUse> layers_of(const BlockMap& map, const Known& known) {
  std::vector<LayerUse> uses;
  std::map<LayerId, int64_t> written;
  for (const LayerId id : map.layers()) {
    LayerUse use{id};
    use.shared = known.shared.contains(id);
    if (const auto found = known.generations.find(id); found != known.generations.end()) use.generation = found->second;
    if (const auto found = known.stored.find(id); found != known.stored.end()) {
      use.stored_bytes = found->second.stored_bytes;
      use.form = found->second.form;
      written[id] = found->second.written_unix_ns;
    }
    uses.push_back(use);
  }
  std::sort(uses.begin(), uses.end(), [&](const LayerUse& a, const LayerUse& b) {
    return std::tuple(a.generation, written[a.id], a.id) < std::tuple(b.generation, written[b.id], b.id);
  });
  return uses;
}

SpaceDetail detail_of(const std::string& name, const BlockMap& map, const Known& known, size_t cells) {
  SpaceDetail detail;
  detail.name = name;
  detail.metadata = map.metadata();
  detail.layers = layers_of(map, known);
  std::map<LayerId, uint32_t> index;
  for (size_t i = 0; i < detail.layers.size(); ++i) index[detail.layers[i].id] = static_cast<uint32_t>(i);
  Raster raster(map.size(), cells, detail.layers.size());
  uint64_t data_extents = 0;
  for (const Extent& extent : map.extents()) {
    ++detail.extents;
    if (extent.is_zero()) {
      detail.zero_bytes += extent.length;
      raster.add({extent.offset, extent.length}, 0);
      continue;
    }
    const uint32_t at = index.at(extent.layer);
    ++data_extents;
    detail.data_bytes += extent.length;
    detail.layers[at].mapped_bytes += extent.length;
    ++detail.layers[at].extents;
    raster.add({extent.offset, extent.length}, at + 1);
  }
  detail.cells = raster.finish();
  if (detail.data_bytes > kBlockSize) {
    const uint64_t joints = detail.data_bytes / kBlockSize - 1;
    detail.fragmentation = static_cast<double>(data_extents - 1) / static_cast<double>(joints);
  }
  for (const LayerUse& use : detail.layers) (use.shared ? detail.shared_bytes : detail.own_bytes) += use.stored_bytes;
  return detail;
}

Result<Known> look_around(const Store& store, SnapshotId id, std::span<const SandboxMaps> sandboxes) {
  Known known;
  STASIS_ASSIGN(const auto holders, find_holders(store, sandboxes));
  for (const Holder& holder : holders) {
    const bool itself = holder.kind != Holder::Kind::kSandbox && holder.id == id.text();
    if (!itself) known.shared.insert(holder.layers.begin(), holder.layers.end());
  }
  STASIS_ASSIGN(known.stored, stored_layers(store));
  STASIS_ASSIGN(const auto line, lineage(store, id));
  for (const Ancestor& ancestor : line) {
    if (!ancestor.manifest) continue;
    for (const Part& part : ancestor.manifest->maps()) {
      const auto map = store.read_map(ancestor.id, part);
      if (map) note_generations(*map, known.generations);
    }
  }
  return known;
}

}  // namespace

Result<SnapshotDetail> inspect(const Store& store, SnapshotId id, std::span<const SandboxMaps> sandboxes,
                               size_t cells) {
  SnapshotDetail detail;
  STASIS_ASSIGN(const StoreLock lock, store.lock_shared());
  STASIS_ASSIGN(detail.manifest, store.load(id));
  STASIS_ASSIGN(const Known known, look_around(store, id, sandboxes));
  STASIS_ASSIGN(const auto files, store.fs().list(store.snapshot_dir(id)));
  for (const std::string& file : files) {
    STASIS_ASSIGN(const FileInfo info, store.fs().info(store.snapshot_dir(id) / file));
    detail.part_bytes += info.stored_bytes;
  }
  detail.own_bytes = detail.part_bytes;
  const std::pair<const char*, const std::optional<Part>*> maps[] = {{"memory", &detail.manifest.memory_map},
                                                                     {"disk", &detail.manifest.disk_map}};
  for (const auto& [name, part] : maps) {
    if (!*part) continue;
    STASIS_ASSIGN(const BlockMap map, store.read_map(id, **part));
    detail.spaces.push_back(detail_of(name, map, known, cells));
    detail.own_bytes += detail.spaces.back().own_bytes;
    detail.shared_bytes += detail.spaces.back().shared_bytes;
  }
  return detail;
}

Result<std::vector<Ancestor>> lineage(const Store& store, SnapshotId id) {
  std::vector<Ancestor> line;
  std::set<SnapshotId> seen;  // a hostile store may have a circle
  STASIS_TRY(store.load(id));
  while (!id.is_nil() && seen.insert(id).second) {
    auto manifest = store.load(id);
    if (!manifest) {
      line.push_back({id, std::nullopt});
      break;
    }
    const SnapshotId parent = manifest->parent;
    line.push_back({id, std::move(*manifest)});
    id = parent;
  }
  return line;
}

}  // namespace stasis::snapshot
