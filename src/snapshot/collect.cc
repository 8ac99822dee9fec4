// Collection: mark from manifests and roots, then sweep. Nothing is removed before everything has been marked.
#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "base/file_lock.h"
#include "snapshot/staging.h"

namespace stasis::snapshot {
namespace {

// A name that a snapshot's block maps have had: `memory.map`, or with an id before its end after a compaction.
bool is_map_file(std::string_view file) {
  for (const std::string_view space : {"memory", "disk"}) {
    if (!file.starts_with(space) || !file.ends_with(".map")) continue;
    const std::string_view between = file.substr(space.size(), file.size() - space.size() - 4);
    return between.empty() || (between.starts_with('.') && Uuid::parse(between.substr(1)));
  }
  return false;
}

class Collection {
 public:
  explicit Collection(const Store& store) : store_(store), fs_(store.fs()) {}

  Status mark();
  void mark(const BlockMap& map) {
    for (const LayerId id : map.layers()) live_.insert(id.uuid);
  }
  Status sweep();
  const CollectStats& stats() const { return stats_; }

 private:
  Status sweep_snapshots();
  Status sweep_snapshot(const std::string& name);
  Status sweep_replaced_maps(const Path& directory, const Uuid& id, const std::vector<std::string>& files);
  Status sweep_layers();
  Status remove_file(const Path& path);

  const Store& store_;
  FileSystem& fs_;
  std::unordered_set<Uuid> live_;
  std::unordered_map<Uuid, std::vector<std::string>> map_files_;  // by snapshot: what its manifest names
  CollectStats stats_;
};

Status Collection::mark() {
  STASIS_ASSIGN(const auto ids, store_.list());
  for (const SnapshotId id : ids) {
    STASIS_ASSIGN(const Manifest manifest, store_.load(id));
    for (const auto& part : {manifest.memory_map, manifest.disk_map}) {
      if (!part) continue;
      STASIS_ASSIGN(const BlockMap map, store_.read_map(id, *part));
      mark(map);
      map_files_[id.uuid].push_back(part->file);
    }
  }
  return {};
}

Status Collection::sweep() {
  STASIS_ASSIGN(const uint64_t unfinished, sweep_staging(store_));
  stats_.snapshots_swept += unfinished;
  STASIS_TRY(sweep_snapshots());
  // A manifest that is gone must be gone for good before its layers go.
  STASIS_TRY(fs_.sync_directory(store_.snapshots_dir()));
  return sweep_layers();
}

Status Collection::sweep_snapshots() {
  STASIS_ASSIGN(const auto names, fs_.list(store_.snapshots_dir()));
  for (const std::string& name : names) {
    if (Uuid::parse(name)) STASIS_TRY(sweep_snapshot(name));
  }
  return {};
}

Status Collection::sweep_snapshot(const std::string& name) {
  const Path directory = store_.snapshots_dir() / name;
  STASIS_ASSIGN(const auto files, fs_.list(directory));
  if (std::find(files.begin(), files.end(), kManifestFile) == files.end()) {
    STASIS_TRY(remove_tree(fs_, directory));
    ++stats_.snapshots_swept;
    return {};
  }
  for (const std::string& file : files) {
    if (!file.ends_with(".tmp")) continue;
    STASIS_TRY(remove_file(directory / file));
    ++stats_.files_swept;
  }
  return sweep_replaced_maps(directory, *Uuid::parse(name), files);
}

Status Collection::sweep_replaced_maps(const Path& directory, const Uuid& id, const std::vector<std::string>& files) {
  const std::vector<std::string>& named = map_files_[id];
  bool synced = false;
  for (const std::string& file : files) {
    if (!is_map_file(file) || std::find(named.begin(), named.end(), file) != named.end()) continue;
    // The manifest that does not name it may not be durable yet: then a power cut would bring the one before back,
    // which does, and its layers.
    if (!synced) STASIS_TRY(fs_.sync_directory(directory));
    synced = true;
    STASIS_TRY(remove_file(directory / file));
    ++stats_.files_swept;
  }
  return {};
}

Status Collection::sweep_layers() {
  STASIS_ASSIGN(const auto names, fs_.list(store_.layers_dir()));
  for (const std::string& name : names) {
    const Path path = store_.layers_dir() / name;
    if (name.ends_with(".tmp")) {
      STASIS_TRY(remove_file(path));
      ++stats_.files_swept;
      continue;
    }
    const bool is_data = name.ends_with(".raw");
    if (!is_data && !name.ends_with(".sums")) continue;
    const auto uuid = Uuid::parse(path.stem().string());
    if (!uuid || live_.contains(*uuid)) continue;
    STASIS_TRY(remove_file(path));
    if (is_data) ++stats_.layers_removed;
  }
  return {};
}

Status Collection::remove_file(const Path& path) {
  STASIS_ASSIGN(const FileInfo info, fs_.info(path));
  STASIS_TRY(fs_.remove(path));
  stats_.bytes_freed += info.stored_bytes;
  return {};
}

}  // namespace

Result<CollectStats> Store::collect(std::span<const BlockMap> roots) const {
  return collect_with(
      [&]() -> Result<std::vector<BlockMap>> { return std::vector<BlockMap>(roots.begin(), roots.end()); });
}

Result<CollectStats> Store::collect_with(const RootsFunction& roots) const {
  STASIS_ASSIGN(const UniqueFd lock, lock_file(root_ / "lock", LockKind::kTryExclusive));
  Collection collection(*this);
  STASIS_ASSIGN(const auto maps, roots());
  for (const BlockMap& map : maps) collection.mark(map);
  STASIS_TRY_CONTEXT(collection.mark(), "collect");
  STASIS_TRY_CONTEXT(collection.sweep(), "collect");
  return collection.stats();
}

}  // namespace stasis::snapshot
