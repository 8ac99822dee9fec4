// A store on a disk that can lose power, a guest in front of it, and what the store must hold: what operations.h stands
// on.
#pragma once

#include <optional>

#include "base/testing/volatile_file_system.h"
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

  // The operation that follows may publish `id` with the guest's content of now (or that given), or remove it; settle()
  // tells how it ended: done (true), or either (false).
  void expect_new(SnapshotId id) { expect_new(id, {memory->content, disk->content}); }
  void expect_new(SnapshotId id, FaultyStore::Content content) {
    under_way_ = id;
    possible[id] = std::move(content);
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

  // Removes the first snapshot.
  void forget_first() {
    EXPECT_TRUE(store.healthy.remove(first));
    possible.erase(first);
    certain.erase(first);
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

}  // namespace stasis::snapshot::testing
