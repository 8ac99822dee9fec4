#include "snapshot/staging.h"

#include "base/file_lock.h"

namespace stasis::snapshot {

Path staging_dir(const Store& store) { return store.root() / "staging"; }

Staging::Staging(FileSystem& fs, Path layers_dir, Path directory, UniqueFd lock)
    : fs_(&fs), layers_dir_(std::move(layers_dir)), directory_(std::move(directory)), lock_(std::move(lock)) {}

Staging::Staging(Staging&& other) noexcept
    : fs_(other.fs_),
      layers_dir_(std::move(other.layers_dir_)),
      directory_(std::move(other.directory_)),
      lock_(std::move(other.lock_)) {}

Staging::~Staging() {
  if (lock_) (void)remove_tree(*fs_, directory_);
}

Result<Staging> Staging::open(const Store& store, const std::string& name) {
  // Between its making and its lock a collection must not come.
  STASIS_ASSIGN(const StoreLock shared, store.lock_shared());
  FileSystem& fs = store.fs();
  STASIS_TRY(fs.make_directory(staging_dir(store)));
  const Path directory = staging_dir(store) / name;
  STASIS_TRY(fs.make_directory(directory));
  STASIS_ASSIGN(UniqueFd lock, lock_directory(directory, LockKind::kTryExclusive));
  STASIS_ASSIGN(const auto left, fs.list(directory));  // by a maker that died
  for (const std::string& file : left) STASIS_TRY(fs.remove(directory / file));
  return Staging(fs, store.layers_dir(), directory, std::move(lock));
}

Status Staging::take_over(LayerId id) const {
  STASIS_ASSIGN(const LayerFile file, find_layer(*fs_, directory_, id));
  // The checksums first: data under its final name has them.
  if (file.form == LayerForm::kRaw) {
    STASIS_TRY(fs_->rename(layer_sums_path(directory_, id), layer_sums_path(layers_dir_, id)));
  }
  STASIS_TRY(fs_->rename(file.path, layers_dir_ / file.path.filename()));
  return fs_->sync_directory(layers_dir_);
}

void drop_layer(FileSystem& fs, const Path& layers_dir, LayerId id) {
  (void)fs.remove(layer_data_path(layers_dir, id));
  (void)fs.remove(layer_sums_path(layers_dir, id));
  (void)fs.remove(layer_packed_path(layers_dir, id));
}

}  // namespace stasis::snapshot
