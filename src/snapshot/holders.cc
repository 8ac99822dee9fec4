#include "snapshot/holders.h"

#include <algorithm>

namespace stasis::snapshot {
namespace {

void add_layers(Holder& holder, const BlockMap& map) {
  holder.layers.insert(holder.layers.end(), map.layers().begin(), map.layers().end());
}

void sort_layers(Holder& holder) {
  std::sort(holder.layers.begin(), holder.layers.end());
  holder.layers.erase(std::unique(holder.layers.begin(), holder.layers.end()), holder.layers.end());
}

Status describe(const Store& store, SnapshotId id, Holder& holder) {
  STASIS_ASSIGN(const StoreLock lock, store.lock_shared());
  STASIS_ASSIGN(const Manifest manifest, store.load(id));
  holder.kind = manifest.kind == SnapshotKind::kImage ? Holder::Kind::kImage : Holder::Kind::kSnapshot;
  holder.parent = manifest.parent;
  holder.created_unix_ms = manifest.created_unix_ms;
  for (const Part& part : manifest.maps()) {
    STASIS_ASSIGN(const BlockMap map, store.read_map(id, part));
    add_layers(holder, map);
  }
  sort_layers(holder);
  return {};
}

// Bytes of a directory's files; what goes away meanwhile counts nothing.
Result<uint64_t> stored_below(FileSystem& fs, const Path& directory) {
  const auto names = fs.list(directory);
  if (!names && names.error().code == Code::kNotFound) return 0;
  if (!names) return fail(names.error());
  uint64_t bytes = 0;
  for (const std::string& name : *names) {
    const auto info = fs.info(directory / name);
    if (!info && info.error().code != Code::kNotFound) return fail(info.error());
    if (!info) continue;
    bytes += info->stored_bytes;
    if (!info->is_directory) continue;
    STASIS_ASSIGN(const uint64_t below, stored_below(fs, directory / name));
    bytes += below;
  }
  return bytes;
}

}  // namespace

Result<std::vector<Holder>> find_holders(const Store& store, std::span<const SandboxMaps> sandboxes) {
  std::vector<Holder> holders;
  STASIS_ASSIGN(const auto ids, store.list());
  for (const SnapshotId id : ids) {
    Holder holder;
    holder.id = id.text();
    STASIS_ASSIGN(holder.part_bytes, stored_below(store.fs(), store.snapshot_dir(id)));
    if (Status known = describe(store, id, holder); !known) {
      const auto manifest = store.load(id);
      if (!manifest && manifest.error().code == Code::kNotFound) continue;  // deleted meanwhile
      holder.damage = known.error().message;
    }
    holders.push_back(std::move(holder));
  }
  for (const SandboxMaps& sandbox : sandboxes) {
    Holder holder;
    holder.kind = Holder::Kind::kSandbox;
    holder.id = sandbox.id;
    for (const BlockMap& map : sandbox.maps) add_layers(holder, map);
    sort_layers(holder);
    holders.push_back(std::move(holder));
  }
  return holders;
}

Result<std::map<LayerId, StoredLayer>> stored_layers(const Store& store) {
  std::map<LayerId, StoredLayer> layers;
  STASIS_ASSIGN(const auto names, store.fs().list(store.layers_dir()));
  for (const std::string& name : names) {
    const auto uuid = Uuid::parse(Path(name).stem().string());
    if (!uuid || name.ends_with(".tmp")) continue;
    const auto info = store.fs().info(store.layers_dir() / name);
    if (!info && info.error().code == Code::kNotFound) continue;  // collected meanwhile
    if (!info) return fail(info.error());
    StoredLayer& layer = layers[{*uuid}];
    layer.stored_bytes += info->stored_bytes;
    if (name.ends_with(".packed")) layer.form = LayerForm::kPacked;
    if (!name.ends_with(".sums")) layer.written_unix_ns = info->modified_unix_ns;
  }
  return layers;
}

Result<StoreUsage> measure_usage(const Store& store, std::span<const SandboxMaps> sandboxes) {
  STASIS_ASSIGN(std::vector<Holder> holders, find_holders(store, sandboxes));
  STASIS_ASSIGN(const auto layers, stored_layers(store));
  StoreUsage usage;
  usage.layers = layers.size();
  STASIS_ASSIGN(usage.total_bytes, stored_below(store.fs(), store.root()));
  std::map<LayerId, uint64_t> needed;
  for (const Holder& holder : holders) {
    for (const LayerId id : holder.layers) ++needed[id];
  }
  for (Holder& holder : holders) {
    HolderUsage one;
    one.own_bytes = holder.part_bytes;
    for (const LayerId id : holder.layers) {
      const auto found = layers.find(id);
      if (found != layers.end()) (needed[id] == 1 ? one.own_bytes : one.shared_bytes) += found->second.stored_bytes;
    }
    one.holder = std::move(holder);
    usage.holders.push_back(std::move(one));
  }
  return usage;
}

}  // namespace stasis::snapshot
