#include "snapshot/store.h"

#include <algorithm>

#include "base/file_lock.h"
#include "snapshot/checksum.h"
#include "snapshot/files.h"

namespace stasis::snapshot {
namespace {

constexpr uint64_t kHashChunk = 1 << 20;

// Makes a directory and its missing parents, durably. One that is there may have been made by somebody who was killed
// before its name was synced.
Status make_directory_durably(FileSystem& fs, const Path& path) {
  const Path parent = path.parent_path();
  if (!exists(fs, path)) {
    if (parent != path && !parent.empty() && !exists(fs, parent)) STASIS_TRY(make_directory_durably(fs, parent));
    STASIS_TRY(fs.make_directory(path));
  }
  return parent.empty() ? Status{} : fs.sync_directory(parent);
}

// Takes the manifest of `directory` away for good. Nothing that it names may go before: a power cut could bring it
// back.
Status remove_manifest(FileSystem& fs, const Path& directory) {
  STASIS_TRY(fs.remove(directory / kManifestFile));
  return fs.sync_directory(directory);
}

std::string describe(SnapshotId id, const std::string& file) { return "snapshot " + id.text() + ", " + file; }

// The checksum of a whole file, and how long it is.
Result<std::pair<uint64_t, uint64_t>> checksum_of_file(FileSystem& fs, int fd) {
  Checksum sum;
  std::vector<std::byte> buffer(kHashChunk);
  uint64_t size = 0;
  for (;;) {
    STASIS_ASSIGN(const size_t n, fs.read_at(fd, size, buffer));
    sum.update(std::span(buffer).first(n));
    size += n;
    if (n < buffer.size()) return std::pair{sum.digest(), size};
  }
}

Status check_part_name(const std::string& file) {
  if (is_part_name(file)) return {};
  return fail(Code::kInvalidArgument, "'" + file + "' cannot be the name of a part of a snapshot");
}

// What reads back as it was.
Result<std::vector<std::byte>> encode_checked(const Manifest& manifest) {
  std::vector<std::byte> bytes = manifest.encode();
  const auto as_read = Manifest::decode(bytes);
  if (!as_read) return fail(Code::kInvalidArgument, "cannot publish what cannot be read: " + as_read.error().message);
  if (*as_read != manifest) return fail(Code::kInvalidArgument, "the manifest holds text that is not UTF-8");
  return bytes;
}

// Why a part cannot be read: one that is missing is damage, unless its snapshot was removed meanwhile.
Error unreadable(const Store& store, SnapshotId id, const std::string& file, Error error) {
  if (error.code == Code::kNotFound) {
    const auto manifest = store.fs().info(store.snapshot_dir(id) / kManifestFile);
    const bool removed = !manifest && manifest.error().code == Code::kNotFound;
    if (removed) return {Code::kNotFound, "there is no snapshot " + id.text()};
    error.code = Code::kDataLoss;
  }
  return std::move(error).with_context(describe(id, file));
}

}  // namespace

Result<Store> Store::open(FileSystem& fs, Path root) {
  STASIS_TRY(make_directory_durably(fs, root));
  STASIS_TRY(make_directory_durably(fs, root / "layers"));
  STASIS_TRY(make_directory_durably(fs, root / "snapshots"));
  return Store(fs, std::move(root));
}

Path Store::snapshot_dir(SnapshotId id) const { return snapshots_dir() / id.text(); }

Result<StoreLock> Store::lock_shared() const {
  STASIS_ASSIGN(UniqueFd fd, lock_file(root_ / "lock", LockKind::kShared));
  return StoreLock(std::move(fd));
}

Result<Path> Store::begin(SnapshotId id) const {
  const Path directory = snapshot_dir(id);
  if (id.is_nil()) return fail(Code::kInvalidArgument, "a snapshot needs an id");
  STASIS_TRY(check_absent(*fs_, directory, "snapshot " + id.text()));
  STASIS_TRY(fs_->make_directory(directory));
  if (Status synced = fs_->sync_directory(snapshots_dir()); !synced) {
    abandon(id);
    return fail(std::move(synced).error());
  }
  return directory;
}

Result<Part> Store::describe_part(SnapshotId id, const std::string& file) const {
  STASIS_TRY(check_part_name(file));
  STASIS_ASSIGN(const UniqueFd fd, fs_->open_read(snapshot_dir(id) / file));
  STASIS_TRY_CONTEXT(fs_->sync(fd.get()), describe(id, file));
  auto sum = checksum_of_file(*fs_, fd.get());
  if (!sum) return fail(std::move(sum).error().with_context(describe(id, file)));
  return Part{file, sum->second, sum->first};
}

Status Store::sync_part(SnapshotId id, const Part& part) const {
  STASIS_ASSIGN(const Part written, describe_part(id, part.file));
  if (written == part) return {};
  return fail(damaged_part(id, part));
}

Result<Part> Store::write_map(SnapshotId id, const std::string& file, const BlockMap& map) const {
  STASIS_TRY(check_part_name(file));
  STASIS_ASSIGN(const auto bytes, map.encode());
  const Path path = snapshot_dir(id) / file;
  STASIS_ASSIGN(const UniqueFd fd, fs_->create(path));
  STASIS_TRY_CONTEXT(fs_->write_at(fd.get(), 0, bytes), path.string());
  STASIS_TRY_CONTEXT(fs_->set_mode(fd.get(), 0444), path.string());
  STASIS_TRY_CONTEXT(fs_->sync(fd.get()), path.string());
  return Part{file, bytes.size(), checksum(bytes)};
}

Status Store::publish(const Manifest& manifest) const {
  STASIS_ASSIGN(const auto bytes, encode_checked(manifest));
  const Path directory = snapshot_dir(manifest.id);
  const Path path = directory / kManifestFile;
  STASIS_TRY(check_absent(*fs_, path, "snapshot " + manifest.id.text()));
  STASIS_TRY(fs_->sync_directory(directory));  // the parts have their names before the manifest has its own
  Status published = publish_file(*fs_, path, bytes);
  if (published) return {};
  // It may have its name, durable or not: what is reported as failed must not exist, nor come back with a power cut.
  (void)remove_manifest(*fs_, directory);
  return fail(std::move(published).error().with_context("publish snapshot " + manifest.id.text()));
}

Status Store::replace(const Manifest& next) const {
  STASIS_ASSIGN(const auto bytes, encode_checked(next));
  const Path directory = snapshot_dir(next.id);
  STASIS_TRY(fs_->sync_directory(directory));  // as for publish()
  STASIS_TRY_CONTEXT(publish_file(*fs_, directory / kManifestFile, bytes), "replace the manifest of " + next.id.text());
  return {};
}

Result<StoreLock> Store::lock_snapshot(SnapshotId id) const {
  auto fd = lock_directory(snapshot_dir(id), LockKind::kExclusive);
  if (fd) return StoreLock(std::move(*fd));
  if (fd.error().code == Code::kNotFound) return fail(Code::kNotFound, "there is no snapshot " + id.text());
  return fail(std::move(fd).error());
}

void Store::abandon(SnapshotId id) const {
  const Path directory = snapshot_dir(id);
  const auto gone = [](const Status& done) { return done || done.error().code == Code::kNotFound; };
  if (!gone(fs_->remove(directory / kManifestFile)) || !gone(fs_->sync_directory(directory))) return;
  (void)remove_tree(*fs_, directory);
}

Result<Manifest> Store::load(SnapshotId id) const {
  const Path path = snapshot_dir(id) / kManifestFile;
  auto bytes = read_file(*fs_, path, kMaxManifestSize);
  if (!bytes && bytes.error().code == Code::kNotFound)
    return fail(Code::kNotFound, "there is no snapshot " + id.text());
  if (!bytes) return fail(std::move(bytes).error().with_context("snapshot " + id.text()));
  auto manifest = Manifest::decode(*bytes);
  if (!manifest) return fail(std::move(manifest).error().with_context(path.string()));
  if (manifest->id != id) return fail(Code::kDataLoss, path.string() + " is of snapshot " + manifest->id.text());
  return manifest;
}

Status Store::check_part_size(SnapshotId id, const Part& part) const {
  STASIS_TRY(check_part_name(part.file));
  const auto info = fs_->info(snapshot_dir(id) / part.file);
  if (!info) return fail(unreadable(*this, id, part.file, info.error()));
  if (info->size == part.size) return {};
  return fail(Code::kDataLoss, describe(id, part.file) + " has " + std::to_string(info->size) + " bytes instead of " +
                                   std::to_string(part.size));
}

Error Store::damaged_part(SnapshotId id, const Part& part) const {
  return {Code::kDataLoss, describe(id, part.file) + " is damaged: its checksum is not " +
                               checksum_text(part.checksum) + " (" + (snapshot_dir(id) / part.file).string() + ")"};
}

Status Store::verify_part(SnapshotId id, const Part& part) const {
  STASIS_TRY(check_part_size(id, part));
  const auto fd = fs_->open_read(snapshot_dir(id) / part.file);
  if (!fd) return fail(unreadable(*this, id, part.file, fd.error()));
  auto sum = checksum_of_file(*fs_, fd->get());
  if (!sum) return fail(std::move(sum).error().with_context(describe(id, part.file)));
  if (sum->second == part.size && sum->first == part.checksum) return {};
  return fail(damaged_part(id, part));
}

Result<std::vector<std::byte>> Store::read_part(SnapshotId id, const Part& part) const {
  STASIS_TRY(check_part_size(id, part));
  auto bytes = read_file(*fs_, snapshot_dir(id) / part.file, part.size);
  if (!bytes) return fail(unreadable(*this, id, part.file, std::move(bytes).error()));
  if (bytes->size() != part.size || checksum(*bytes) != part.checksum) return fail(damaged_part(id, part));
  return bytes;
}

namespace {

// Reads a file from its start on; `position` is the caller's, so that it outlives the source.
BlockMap::Source source_of(FileSystem& fs, int fd, uint64_t& position) {
  return [&fs, fd, &position](std::span<std::byte> out) -> Status {
    STASIS_ASSIGN(const size_t n, fs.read_at(fd, position, out));
    if (n < out.size()) return fail(Code::kDataLoss, "the file ends at " + std::to_string(position + n));
    position += n;
    return {};
  };
}

}  // namespace

// Summed piece by piece as it is parsed: a map of a million extents is nowhere as bytes.
Result<BlockMap> Store::read_map(SnapshotId id, const Part& part) const {
  STASIS_TRY(check_part_size(id, part));
  const auto fd = fs_->open_read(snapshot_dir(id) / part.file);
  if (!fd) return fail(unreadable(*this, id, part.file, fd.error()));
  Checksum sum;
  uint64_t position = 0;
  const auto source = source_of(*fs_, fd->get(), position);
  auto map = BlockMap::read(part.size, [&](std::span<std::byte> out) -> Status {
    STASIS_TRY(source(out));
    sum.update(out);
    return {};
  });
  if (map && sum.digest() == part.checksum) return map;
  // Damage is told as such, whatever it makes of the map.
  STASIS_TRY(verify_part(id, part));
  if (map) return fail(damaged_part(id, part));
  return fail(std::move(map).error().with_context(describe(id, part.file)));
}

Result<BlockMap::Metadata> Store::read_map_metadata(SnapshotId id, const Part& part) const {
  STASIS_TRY(check_part_size(id, part));
  const auto fd = fs_->open_read(snapshot_dir(id) / part.file);
  if (!fd) return fail(unreadable(*this, id, part.file, fd.error()));
  uint64_t position = 0;
  auto metadata = BlockMap::read_metadata(part.size, source_of(*fs_, fd->get(), position));
  if (!metadata) return fail(std::move(metadata).error().with_context(describe(id, part.file)));
  return metadata;
}

Result<std::vector<SnapshotId>> Store::list() const {
  STASIS_ASSIGN(const auto names, fs_->list(snapshots_dir()));
  std::vector<SnapshotId> ids;
  for (const std::string& name : names) {
    const auto uuid = Uuid::parse(name);
    if (!uuid) continue;
    const auto info = fs_->info(snapshots_dir() / name / kManifestFile);
    if (info) ids.push_back({*uuid});
    if (!info && info.error().code != Code::kNotFound) return fail(info.error());
  }
  return ids;
}

Status Store::remove(SnapshotId id) const {
  // A collection sweeps directories without a manifest: it must not meet one that is being taken apart.
  STASIS_ASSIGN(const StoreLock lock, lock_shared());
  // A compaction that is about to replace its manifest must not bring it back.
  STASIS_ASSIGN(const StoreLock mine, lock_snapshot(id));
  const Path directory = snapshot_dir(id);
  Status removed = remove_manifest(*fs_, directory);
  if (!removed && removed.error().code == Code::kNotFound) {
    return fail(Code::kNotFound, "there is no snapshot " + id.text());
  }
  if (!removed) return removed;
  (void)remove_tree(*fs_, directory);  // what stays is rubbish that the next collection sweeps
  return {};
}

}  // namespace stasis::snapshot
