#include "snapshot/compact.h"

#include "snapshot/flatten.h"
#include "snapshot/packed_layer.h"
#include "snapshot/staging.h"

namespace stasis::snapshot {
namespace {

// So that the sync at the end has little left to do, and nobody else's sync has to wait for gigabytes of ours.
constexpr uint64_t kSyncEvery = 32 << 20;

struct Space {
  const char* name;  // what its block map's file begins with
  std::optional<Part> Manifest::*part;
  BlockMap map;    // what the manifest names now
  BlockMap moved;  // what of it is copied; zeros for the rest
  LayerId layer;   // the fresh one
  BlockMap compacted;
};

class Compaction {
 public:
  Compaction(const Store& store, SnapshotId id, CompactOptions options)
      : store_(store), fs_(store.fs()), id_(id), options_(std::move(options)) {}

  Result<CompactResult> run() {
    STASIS_TRY(open());
    if (spaces_.empty()) return result_;
    STASIS_ASSIGN(const Staging staging, Staging::open(store_, "compact-" + id_.text()));
    for (size_t i = 0; i < spaces_.size(); ++i) STASIS_TRY(copy(staging, spaces_[i], *contents_[i]));
    STASIS_TRY(publish(staging));
    return result_;
  }

 private:
  // Reads the manifest and opens the layers. From then on their descriptors keep them, whatever is collected.
  Status open() {
    STASIS_ASSIGN(const StoreLock lock, store_.lock_shared());
    STASIS_ASSIGN(before_, store_.load(id_));
    if (options_.memory) STASIS_TRY(open("memory", &Manifest::memory_map));
    if (options_.disk) STASIS_TRY(open("disk", &Manifest::disk_map));
    return {};
  }

  Status open(const char* name, std::optional<Part> Manifest::*part) {
    if (!(before_.*part)) return {};
    STASIS_ASSIGN(BlockMap map, store_.read_map(id_, *(before_.*part)));
    STASIS_ASSIGN(BlockMap moved, without_kept(map));
    STASIS_ASSIGN(const bool worth, worth_compacting(store_, moved, options_.form));
    if (!worth) return {};
    for (const LayerId layer : moved.layers()) {
      STASIS_ASSIGN(const uint64_t stored, stored_bytes(store_.layers_dir(), layer));
      result_.stored_before += stored;
    }
    STASIS_ASSIGN(contents_.emplace_back(), AddressSpace::open(fs_, store_.layers_dir(), moved));
    spaces_.push_back({name, part, std::move(map), std::move(moved), LayerId::random(), {}});
    return {};
  }

  Result<BlockMap> without_kept(const BlockMap& map) const {
    if (options_.keep.empty()) return map;
    std::vector<Extent> extents = map.extents();
    for (Extent& extent : extents) {
      if (options_.keep.contains(extent.layer)) extent.layer = {}, extent.layer_offset = 0;
    }
    return BlockMap::from_extents(map.metadata(), extents);
  }

  // With its checksums.
  Result<uint64_t> stored_bytes(const Path& directory, LayerId id) const {
    STASIS_ASSIGN(const LayerFile file, find_layer(fs_, directory, id));
    if (file.form == LayerForm::kPacked) return file.info.stored_bytes;
    STASIS_ASSIGN(const FileInfo sums, fs_.info(layer_sums_path(directory, id)));
    return file.info.stored_bytes + sums.stored_bytes;
  }

  Status copy(const Staging& staging, Space& space, const AddressSpace& content) {
    return options_.form == LayerForm::kPacked ? copy_with<PackedLayerWriter>(staging, space, content)
                                               : copy_with<LayerWriter>(staging, space, content);
  }

  template <typename Writer>
  Status copy_with(const Staging& staging, Space& space, const AddressSpace& content) {
    STASIS_ASSIGN(const auto writer, Writer::create(fs_, staging.directory(), space.layer, content.size()));
    uint64_t written = 0;
    uint64_t synced = 0;
    Flattener flattener(content, options_.limit, kHugePageSize);
    const auto write = [&](uint64_t offset, std::span<const std::byte> data) -> Status {
      STASIS_TRY(writer->write(offset, data));
      written += data.size();
      if (written - synced < kSyncEvery) return {};
      synced = written;
      return writer->sync();
    };
    STASIS_TRY(flattener.run(0, write));
    STASIS_TRY(writer->finish());
    STASIS_ASSIGN(space.compacted, rewritten(space));
    STASIS_ASSIGN(const uint64_t stored, stored_bytes(staging.directory(), space.layer));
    ++result_.spaces;
    result_.layers_before += space.moved.layers().size();
    result_.written.push_back(space.layer);
    result_.stored_after += stored;
    result_.live_bytes += written;
    result_.read_bytes += flattener.read_bytes();
    return {};
  }

  Result<BlockMap> rewritten(const Space& space) const {
    std::vector<Extent> extents = space.map.extents();
    for (Extent& extent : extents) {
      if (extent.is_zero() || options_.keep.contains(extent.layer)) continue;
      extent.layer = space.layer, extent.layer_offset = extent.offset;
    }
    return BlockMap::from_extents(space.map.metadata(), extents);
  }

  // Once the manifest has been replaced, or may have been, nothing is undone: old and new are both whole, and a
  // collection sees which one stands.
  Status publish(const Staging& staging) {
    STASIS_ASSIGN(const StoreLock shared, store_.lock_shared());
    STASIS_ASSIGN(const StoreLock mine, store_.lock_snapshot(id_));
    STASIS_ASSIGN(const Manifest now, store_.load(id_));
    if (now != before_) return fail(Code::kAborted, "snapshot " + id_.text() + " was changed while it was compacted");
    Manifest next = now;
    Status done = prepare(staging, next);
    if (done) done = store_.replace(next);
    if (done) return {};
    const auto stands = store_.load(id_);
    if (stands && *stands == before_) undo();
    return done;
  }

  Status prepare(const Staging& staging, Manifest& next) const {
    for (const Space& space : spaces_) {
      STASIS_TRY(staging.take_over(space.layer));
      STASIS_ASSIGN(next.*space.part, store_.write_map(id_, file_of(space), space.compacted));
    }
    return {};
  }

  void undo() const {
    for (const Space& space : spaces_) {
      (void)fs_.remove(store_.snapshot_dir(id_) / file_of(space));
      drop_layer(fs_, store_.layers_dir(), space.layer);
    }
  }

  // A name of its own: the old map is still in use under the old one.
  static std::string file_of(const Space& space) { return std::string(space.name) + "." + space.layer.text() + ".map"; }

  const Store& store_;
  FileSystem& fs_;
  const SnapshotId id_;
  CompactOptions options_;
  Manifest before_;
  std::vector<Space> spaces_;
  std::vector<std::shared_ptr<AddressSpace>> contents_;  // of spaces_
  CompactResult result_;
};

}  // namespace

uint64_t live_bytes(const BlockMap& map) {
  uint64_t bytes = 0;
  for (uint64_t at = 0; at < map.size();) {
    const Extent extent = map.find(at);
    if (!extent.is_zero()) bytes += extent.length;
    at = extent.end();
  }
  return bytes;
}

Result<bool> worth_compacting(const Store& store, const BlockMap& map, LayerForm form) {
  if (map.layers().empty()) return false;
  if (map.layers().size() > 1) return true;
  auto file = find_layer(store.fs(), store.layers_dir(), map.layers().front());
  if (!file && file.error().code == Code::kNotFound) file.error().code = Code::kDataLoss;
  if (!file) return fail(std::move(file).error());
  return file->form != form || mostly_dead(file->info.stored_bytes, live_bytes(map));
}

Result<CompactResult> compact(const Store& store, SnapshotId id, CompactOptions options) {
  auto result = Compaction(store, id, std::move(options)).run();
  if (!result) return fail(std::move(result).error().with_context("compact snapshot " + id.text()));
  return result;
}

}  // namespace stasis::snapshot
