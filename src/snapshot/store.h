// The store: one directory with every layer, snapshot and image of a host.
//   layers/<uuid>.raw, <uuid>.sums       immutable, mode 0444
//   snapshots/<uuid>/manifest            written last; beside it the parts that it names (state, memory.map, ...)
//   staging/<name>/, imports/<uuid>/     layers that take long to make, archives that arrive (staging.h, kept_import.h)
//   lock                                 flock: shared by whoever writes or newly refers to layers, exclusive for
//                                        collection
// What a manifest names is there for as long as the manifest stands, and for as long as the shared lock was held since
// the manifest was read: who reads a block map, or opens layers, holds it from load() on.
//
// Snapshots share layers by reference. A layer lives as long as a manifest or one of the `roots` given to collect()
// names it: running sandboxes keep a copy of their block maps in their own directory, and those are the roots.
// Functions are thread-safe; several processes (the agent and each supervisor) use one store at a time.
#pragma once

#include <chrono>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "snapshot/capture.h"
#include "snapshot/layer.h"
#include "snapshot/manifest.h"

namespace stasis::snapshot {

// Notes of layers that are known to be whole (verified.h).
inline constexpr char kVerifiedDirectory[] = "verified";

// A held lock on the store; released by its destructor.
class StoreLock {
 public:
  explicit StoreLock(UniqueFd fd) : fd_(std::move(fd)) {}

 private:
  UniqueFd fd_;
};

struct CollectOptions {
  bool dry_run = false;  // says what it would do, and does nothing
  // What was written less than so long ago stays, though nothing needs it. For stores that somebody writes into without
  // holding the lock; who holds it is safe without.
  std::chrono::seconds grace{0};
  int64_t now_unix_ns = 0;  // for `grace`, and for imports that nobody goes on with (kept_import.h); 0: those stay
};

struct CollectStats {
  uint64_t snapshots_swept = 0;  // directories without a manifest, or of work that was never finished
  uint64_t layers_removed = 0;
  uint64_t bytes_freed = 0;
  uint64_t files_swept = 0;  // temporary files, block maps that compaction has replaced
  uint64_t files_kept = 0;   // rubbish, and younger than `grace`
  struct Removed {
    std::string file;    // below the store's root; of a snapshot, its directory
    uint64_t bytes = 0;  // on the device
  };
  std::vector<Removed> removed;  // the same, one by one
};

class Store {
 public:
  // Makes the directories, with their parents, if they are missing.
  static Result<Store> open(FileSystem& fs, Path root);
  // A store that another process has opened and keeps: makes nothing and syncs nothing, which would cost a restore 6
  // ms.
  static Store attach(FileSystem& fs, Path root) { return {fs, std::move(root)}; }

  FileSystem& fs() const { return *fs_; }
  const Path& root() const { return root_; }
  Path layers_dir() const { return root_ / "layers"; }
  Path snapshots_dir() const { return root_ / "snapshots"; }
  Path snapshot_dir(SnapshotId id) const;

  // Held while layers are written or a new reference to existing layers is made (blocks while a collection runs).
  Result<StoreLock> lock_shared() const;

  // Begins a snapshot: makes its directory. The caller writes its parts there under their final names, then calls
  // publish().
  Result<Path> begin(SnapshotId id) const;
  // Describes a part file already written in the snapshot's directory (size, checksum), and syncs it.
  Result<Part> describe_part(SnapshotId id, const std::string& file) const;
  // The same for a part whose bytes the caller had in hand: kDataLoss if what is there is not what `part` says.
  Status sync_part(SnapshotId id, const Part& part) const;
  // Encodes `map` into a part file, synced.
  Result<Part> write_map(SnapshotId id, const std::string& file, const BlockMap& map) const;
  // Writes the manifest and syncs the directories: after this, and not before, the snapshot exists.
  Status publish(const Manifest& manifest) const;
  // Puts `next` in place of the manifest of the same snapshot (which describes the same content in other files); the
  // caller holds lock_shared() and lock_snapshot(). After a failure either stands.
  Status replace(const Manifest& next) const;
  // Held by whoever replaces or removes a snapshot (waits for another). kNotFound if there is none.
  Result<StoreLock> lock_snapshot(SnapshotId id) const;
  // Removes a snapshot that was begun and not published. Never fails loudly: what stays is swept later.
  void abandon(SnapshotId id) const;

  // kNotFound if there is no such snapshot; kDataLoss if its manifest is damaged.
  Result<Manifest> load(SnapshotId id) const;
  // Reads a part and verifies size and checksum: kDataLoss names the file and the snapshot; kNotFound if the snapshot
  // was removed since its manifest was read.
  Result<std::vector<std::byte>> read_part(SnapshotId id, const Part& part) const;
  Result<BlockMap> read_map(SnapshotId id, const Part& part) const;
  // Only the head of a map, verified by its own checksum: 2 reads, however many extents it has.
  Result<BlockMap::Metadata> read_map_metadata(SnapshotId id, const Part& part) const;
  // The same check without keeping the bytes, in constant memory.
  Status verify_part(SnapshotId id, const Part& part) const;
  // Ids of all published snapshots and images, sorted.
  Result<std::vector<SnapshotId>> list() const;
  // Takes the manifest away first (from then on it does not exist), then the rest. Layers stay until collect().
  // kNotFound if there is none. Takes the shared lock.
  Status remove(SnapshotId id) const;

  // Removes layers that no manifest and none of `roots` needs, snapshot directories without a manifest, block maps that
  // their manifest names no longer, what dead makers left in staging, stale imports, and *.tmp. Takes the exclusive
  // lock: kAborted at once if somebody holds it shared. A manifest that cannot be read stops the collection (its layers
  // are unknown) with kDataLoss.
  Result<CollectStats> collect(std::span<const BlockMap> roots, const CollectOptions& options = {}) const;
  // The same with roots that are asked for under the lock: who writes down a new root under the shared lock is always
  // seen. An error of `roots` stops the collection before anything is removed.
  using RootsFunction = std::function<Result<std::vector<BlockMap>>()>;
  Result<CollectStats> collect_with(const RootsFunction& roots, const CollectOptions& options = {}) const;

 private:
  Store(FileSystem& fs, Path root) : fs_(&fs), root_(std::move(root)) {}
  Status check_part_size(SnapshotId id, const Part& part) const;
  Error damaged_part(SnapshotId id, const Part& part) const;

  FileSystem* fs_;
  Path root_;
};

// Makes an image in the store from plain files: the root disk (any sparse file, size a multiple of 4 KiB) becomes one
// layer and a generation-0 block map, kernel and initrd become parts. Blocks of zeros are not stored. Takes the shared
// lock; on failure nothing of it stays. Returns the published manifest.
struct ImageFiles {
  Path vmlinux;
  Path initrd;
  Path root_disk;
  std::string kernel;  // release
};
Result<Manifest> import_image(const Store& store, const ImageFiles& files);

}  // namespace stasis::snapshot
