// Whole operations on a store, each to be interrupted at every call to the file system: a table, so that every way of
// interrupting them covers all. A new operation of the store is one more entry in operations().
#pragma once

#include <optional>

#include "base/testing/volatile_file_system.h"
#include "snapshot/compact.h"
#include "snapshot/testing/faulty_store.h"

namespace stasis::snapshot::testing {

// A store on a disk that can lose power, with two snapshots of one guest and the guest, which has changed since; and
// what the store must hold.
class World {
 public:
  explicit World(uint64_t seed) : random(seed) {
    for (const SnapshotId id : {first, second}) {
      change();
      expect_new(id);
      const Status taken = take(store.healthy, id);
      EXPECT_TRUE(taken) << taken.error().message;
      settle(taken.has_value());
    }
    change();
    for (const Path& path : {image.vmlinux, image.initrd, image.root_disk}) write_whole_file(path, image_disk);
  }

  // The operation that follows may publish `id` with the guest's content of now, or remove it; settle() tells how it
  // ended: done (true), or either (false).
  void expect_new(SnapshotId id) {
    under_way_ = id;
    possible[id] = {memory->content, disk->content};
  }
  void expect_removed(SnapshotId id) {
    under_way_ = id;
    removal_ = true;
  }
  void settle(bool done) {
    if (done && removal_) possible.erase(*under_way_);
    if (done && !removal_) certain.insert(*under_way_);
    if (removal_) certain.erase(*under_way_);
    if (!done && !removal_) in_doubt = under_way_;
    under_way_.reset();
    removal_ = false;
  }

  // A snapshot of the guest.
  Status take(const Store& into, SnapshotId id) {
    return snapshot_all(into, id, *memory, memory_map, *disk, {memory->whole()});
  }
  std::vector<BlockMap> roots() const { return {memory_map, disk->map}; }

  void change() {
    memory->write(pick(random, 0, 30) * kBlockSize, random_bytes(random, 10 * kBlockSize));
    memory->zero(blocks(pick(random, 0, 38), 2));
    disk->write(pick(random, 0, 20), random_bytes(random, 4 * kBlockSize));
    disk->discard(pick(random, 0, 20), 3);
  }

  ::stasis::testing::VolatileFileSystem& device() {
    return static_cast<::stasis::testing::VolatileFileSystem&>(*store.device);
  }
  // Power goes and comes back: the guest is gone, and another one is started from a snapshot.
  void lose_power() { come_back(*device().cut_power()); }
  void come_back(const ::stasis::testing::VolatileFileSystem::Cut& cut) {
    disk.reset();
    device().come_back(cut, random);
    reopen();
  }
  // Who used the store was killed: the guest is gone, the kernel has everything.
  void reopen() {
    disk.reset();
    auto opened = Store::open(store.quiet, store.root);
    ASSERT_TRUE(opened) << opened.error().message;
    store.healthy = *opened;
    const auto manifest = store.healthy.load(second);
    ASSERT_TRUE(manifest) << manifest.error().message;
    memory_map = store.healthy.read_map(second, *manifest->memory_map).value();
    memory = std::make_unique<Memory>(kMemorySize);
    memory->write(0, possible.at(second).memory);
    disk = std::make_unique<Disk>(store, store.healthy.read_map(second, *manifest->disk_map).value(),
                                  possible.at(second).disk);
  }

  // An image whose id its importer did not live to tell.
  void find_image() {
    const std::vector<SnapshotId> listed = store.healthy.list().value();
    for (const SnapshotId id : listed) {
      if (possible.contains(id) || image_found) continue;
      const auto manifest = store.healthy.load(id);
      if (!manifest || manifest->kind != SnapshotKind::kImage) continue;
      image_found = true;
      possible[id] = {{}, image_disk};
    }
  }
  // What is listed is whole and was not made up; what must be listed is.
  void check() {
    store.expect_listed_snapshots_whole(possible);
    for (const SnapshotId id : certain) EXPECT_TRUE(store.healthy.load(id)) << id.text() << " is lost";
  }

  static constexpr uint64_t kMemorySize = 40 * kBlockSize;
  static constexpr uint64_t kDiskSize = 24 * kBlockSize;

  Random random;
  FaultyStore store{[](const Path& dir) { return std::make_unique<::stasis::testing::VolatileFileSystem>(dir); }};
  const ImageFiles image{store.dir.path() / "vmlinux", store.dir.path() / "initrd", store.dir.path() / "disk", "6.1"};
  const Bytes image_disk = random_bytes(random, 3 * kBlockSize);
  const SnapshotId first = SnapshotId::random();
  const SnapshotId second = SnapshotId::random();
  const SnapshotId third = SnapshotId::random();
  std::map<SnapshotId, FaultyStore::Content> possible;  // may be listed, and then with this content
  std::set<SnapshotId> certain;                         // must be listed
  std::optional<SnapshotId> in_doubt;                   // its publication has failed or was interrupted
  bool image_found = false;
  std::unique_ptr<Memory> memory = std::make_unique<Memory>(kMemorySize);
  BlockMap memory_map = BlockMap::zeros(kMemorySize).value();
  std::unique_ptr<Disk> disk = std::make_unique<Disk>(store, kDiskSize);

 private:
  std::optional<SnapshotId> under_way_;
  bool removal_ = false;
};

struct Operation {
  const char* name;
  uint64_t least_calls;  // it makes at least so many calls: fewer, and nothing was tested
  // Runs on world.store.store, which may fail; tells the world what it is about to do. The first error that it meets.
  Status (*run)(World&);
  void (*run_before)(World&) = nullptr;  // makes what the operation needs
};

inline Status run_snapshot(World& world) {
  world.expect_new(world.third);
  Status taken = world.take(world.store.store, world.third);
  world.settle(taken.has_value());
  return taken;
}

inline Status run_remove(World& world) {
  world.expect_removed(world.first);
  Status removed = world.store.store.remove(world.first);
  world.settle(removed.has_value());
  return removed;
}

// Collects a store with all kinds of rubbish, while the guest runs.
inline Status run_collect(World& world) {
  auto collected = world.store.store.collect(world.roots());
  if (!collected) return fail(std::move(collected).error());
  return {};
}

inline void leave_rubbish(World& world) {
  EXPECT_TRUE(world.store.healthy.remove(world.first));
  world.possible.erase(world.first);
  world.certain.erase(world.first);
  const Path begun = world.store.healthy.begin(SnapshotId::random()).value();
  for (const Path& path : {begun / "state", begun / "manifest.tmp", world.store.root / "layers" / "x.raw.tmp",
                           world.store.healthy.snapshot_dir(world.second) / "manifest.tmp"}) {
    EXPECT_TRUE(world.store.quiet.create(path));
  }
}

inline Status run_import(World& world) {
  auto manifest = import_image(world.store.store, world.image);
  if (!manifest) return fail(std::move(manifest).error());
  world.possible[manifest->id] = {{}, world.image_disk};
  world.certain.insert(manifest->id);
  world.image_found = true;
  return {};
}

// Overwriting a name: the new snapshot, then the old one goes, then what only it needed; each is tried whatever
// happened to the one before.
inline Status run_overwrite(World& world) {
  const Status taken = run_snapshot(world);
  const Status removed = run_remove(world);
  const Status collected = run_collect(world);
  for (const Status& status : {taken, removed}) {
    if (!status) return status;
  }
  return collected;
}

// The same snapshot in another form: the guest stands on it.
inline Status run_pack(World& world) {
  auto packed = compact(world.store.store, world.second, {.form = LayerForm::kPacked});
  if (!packed) return fail(std::move(packed).error());
  return {};
}

inline const std::vector<Operation>& operations() {
  static const std::vector<Operation> table{
      {"snapshot", 60, run_snapshot}, {"remove", 5, run_remove},        {"collect", 20, run_collect, leave_rubbish},
      {"import", 30, run_import},     {"overwrite", 80, run_overwrite}, {"pack", 60, run_pack},
  };
  return table;
}

}  // namespace stasis::snapshot::testing
