// Collection: mark from manifests and roots, then sweep. Nothing is removed before everything has been marked.
#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "base/file_lock.h"
#include "snapshot/kept_import.h"
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
  Collection(const Store& store, const CollectOptions& options) : store_(store), fs_(store.fs()), options_(options) {}

  Status mark();
  void mark(const BlockMap& map) {
    for (const LayerId id : map.layers()) live_.insert(id.uuid);
  }
  Status sweep();
  const CollectStats& stats() const { return stats_; }

 private:
  Status sweep_snapshots();
  Status sweep_snapshot(const std::string& name);
  Status sweep_temporary_files(const Path& directory, const std::vector<std::string>& files);
  Status sweep_replaced_maps(const Path& directory, const Uuid& id, const std::vector<std::string>& files);
  // Of a snapshot without a manifest, or of work that was never finished.
  Status sweep_directory(const Path& directory);
  Status sweep_staging();
  Status sweep_kept_imports();
  // Nobody goes on with it any more, or nobody could.
  Result<bool> is_stale(const Uuid& stream) const;
  Status sweep_layers();
  Status sweep_notes();
  // False: it was younger than the grace period, and stays.
  Result<bool> remove_file(const Path& path);
  bool is_young(const FileInfo& info) const;
  void removed(const Path& path, uint64_t bytes);

  const Store& store_;
  FileSystem& fs_;
  const CollectOptions& options_;
  std::unordered_set<Uuid> live_;
  std::unordered_map<Uuid, std::vector<std::string>> map_files_;  // by snapshot: what its manifest names
  CollectStats stats_;
};

Status Collection::mark() {
  STASIS_ASSIGN(const auto ids, store_.list());
  for (const SnapshotId id : ids) {
    STASIS_ASSIGN(const Manifest manifest, store_.load(id));
    for (const Part& part : manifest.maps()) {
      STASIS_ASSIGN(const BlockMap map, store_.read_map(id, part));
      mark(map);
      map_files_[id.uuid].push_back(part.file);
    }
  }
  return {};
}

Status Collection::sweep() {
  STASIS_TRY(sweep_staging());
  STASIS_TRY(sweep_kept_imports());
  STASIS_TRY(sweep_snapshots());
  // A manifest that is gone must be gone for good before its layers go.
  if (!options_.dry_run) STASIS_TRY(fs_.sync_directory(store_.snapshots_dir()));
  STASIS_TRY(sweep_layers());
  return sweep_notes();
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
  if (std::find(files.begin(), files.end(), kManifestFile) == files.end()) return sweep_directory(directory);
  STASIS_TRY(sweep_temporary_files(directory, files));
  return sweep_replaced_maps(directory, *Uuid::parse(name), files);
}

Status Collection::sweep_replaced_maps(const Path& directory, const Uuid& id, const std::vector<std::string>& files) {
  const std::vector<std::string>& named = map_files_[id];
  bool synced = false;
  for (const std::string& file : files) {
    if (!is_map_file(file) || std::find(named.begin(), named.end(), file) != named.end()) continue;
    // The manifest that does not name it may not be durable yet: then a power cut would bring the one before back,
    // which does, and its layers.
    if (!synced && !options_.dry_run) STASIS_TRY(fs_.sync_directory(directory));
    synced = true;
    STASIS_ASSIGN(const bool gone, remove_file(directory / file));
    if (gone) ++stats_.files_swept;
  }
  return {};
}

Status Collection::sweep_staging() {
  const Path staging = staging_dir(store_);
  const auto names = fs_.list(staging);
  if (!names && names.error().code == Code::kNotFound) return {};
  if (!names) return fail(names.error());
  for (const std::string& name : *names) {
    STASIS_ASSIGN(const FileInfo info, fs_.info(staging / name));
    if (!info.is_directory) continue;
    const auto lock = lock_directory(staging / name, LockKind::kTryExclusive);
    if (lock) STASIS_TRY(sweep_directory(staging / name));  // else somebody is at work there
  }
  return {};
}

Status Collection::sweep_kept_imports() {
  const Path imports = kept_imports_dir(store_);
  const auto names = fs_.list(imports);
  if (!names && names.error().code == Code::kNotFound) return {};
  if (!names) return fail(names.error());
  for (const std::string& name : *names) {
    const auto stream = Uuid::parse(name);
    if (!stream) continue;
    const auto lock = lock_directory(imports / name, LockKind::kTryExclusive);
    if (!lock) continue;  // an import is under way
    STASIS_ASSIGN(const bool stale, is_stale(*stream));
    if (stale) {
      STASIS_TRY(sweep_directory(imports / name));
    } else {
      STASIS_ASSIGN(const auto files, fs_.list(imports / name));
      STASIS_TRY(sweep_temporary_files(imports / name, files));
    }
  }
  return {};
}

Result<bool> Collection::is_stale(const Uuid& stream) const {
  const auto kept = find_kept_import(store_, stream);
  if (!kept && kept.error().code == Code::kNotFound) return true;
  if (!kept) return fail(kept.error());
  STASIS_ASSIGN(const FileInfo archive, fs_.info(kept_archive_path(store_, stream)));
  return options_.now_unix_ns - archive.modified_unix_ns > std::chrono::nanoseconds(kKeptImportAge).count();
}

Status Collection::sweep_temporary_files(const Path& directory, const std::vector<std::string>& files) {
  for (const std::string& file : files) {
    if (!file.ends_with(".tmp")) continue;
    STASIS_ASSIGN(const bool gone, remove_file(directory / file));
    if (gone) ++stats_.files_swept;
  }
  return {};
}

Status Collection::sweep_directory(const Path& directory) {
  STASIS_ASSIGN(const FileInfo own, fs_.info(directory));
  STASIS_ASSIGN(const auto files, fs_.list(directory));
  bool young = is_young(own);
  uint64_t bytes = 0;
  for (const std::string& file : files) {
    STASIS_ASSIGN(const FileInfo info, fs_.info(directory / file));
    young = young || is_young(info);
    bytes += info.stored_bytes;
  }
  // Its manifest may have been taken away by somebody who did not live to sync that, and would come back with a power
  // cut: without its parts, and, if the directory stays for now, without its layers.
  if (!options_.dry_run) STASIS_TRY(fs_.sync_directory(directory));
  if (young) {
    ++stats_.files_kept;
    return {};
  }
  if (!options_.dry_run) STASIS_TRY(remove_tree(fs_, directory));
  ++stats_.snapshots_swept;
  removed(directory, bytes);
  return {};
}

Status Collection::sweep_layers() {
  STASIS_ASSIGN(const auto names, fs_.list(store_.layers_dir()));
  for (const std::string& name : names) {
    const Path path = store_.layers_dir() / name;
    if (name.ends_with(".tmp")) {
      STASIS_ASSIGN(const bool gone, remove_file(path));
      if (gone) ++stats_.files_swept;
      continue;
    }
    const bool is_data = name.ends_with(".raw") || name.ends_with(".packed");
    if (!is_data && !name.ends_with(".sums")) continue;
    const auto uuid = Uuid::parse(path.stem().string());
    if (!uuid || live_.contains(*uuid)) continue;
    STASIS_ASSIGN(const bool gone, remove_file(path));
    if (is_data && gone) ++stats_.layers_removed;
  }
  return {};
}

// Notes of layers that are gone, and what a killed process left of one. They are small and not told of.
Status Collection::sweep_notes() {
  const Path directory = store_.root() / kVerifiedDirectory;
  const auto names = fs_.list(directory);
  if (options_.dry_run || (!names && names.error().code == Code::kNotFound)) return {};
  if (!names) return fail(names.error());
  for (const std::string& name : *names) {
    const auto uuid = Uuid::parse(name);
    if (uuid && live_.contains(*uuid)) continue;
    Status gone = fs_.remove(directory / name);
    if (!gone && gone.error().code != Code::kNotFound) return gone;  // a verification may have been faster
  }
  return {};
}

bool Collection::is_young(const FileInfo& info) const {
  const int64_t age = options_.now_unix_ns - info.modified_unix_ns;
  return options_.grace.count() > 0 && age < std::chrono::nanoseconds(options_.grace).count();
}

Result<bool> Collection::remove_file(const Path& path) {
  STASIS_ASSIGN(const FileInfo info, fs_.info(path));
  if (is_young(info)) {
    ++stats_.files_kept;
    return false;
  }
  if (!options_.dry_run) STASIS_TRY(fs_.remove(path));
  removed(path, info.stored_bytes);
  return true;
}

void Collection::removed(const Path& path, uint64_t bytes) {
  stats_.bytes_freed += bytes;
  stats_.removed.push_back({path.lexically_relative(store_.root()).string(), bytes});
}

}  // namespace

Result<CollectStats> Store::collect(std::span<const BlockMap> roots, const CollectOptions& options) const {
  return collect_with(
      [&]() -> Result<std::vector<BlockMap>> { return std::vector<BlockMap>(roots.begin(), roots.end()); }, options);
}

Result<CollectStats> Store::collect_with(const RootsFunction& roots, const CollectOptions& options) const {
  STASIS_ASSIGN(const UniqueFd lock, lock_file(root_ / "lock", LockKind::kTryExclusive));
  Collection collection(*this, options);
  STASIS_ASSIGN(const auto maps, roots());
  for (const BlockMap& map : maps) collection.mark(map);
  STASIS_TRY_CONTEXT(collection.mark(), "collect");
  STASIS_TRY_CONTEXT(collection.sweep(), "collect");
  return collection.stats();
}

}  // namespace stasis::snapshot
