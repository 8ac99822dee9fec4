// Every call to the file system of a whole snapshot, removal and collection fails in turn, once or with all that
// follow.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "snapshot/testing/faulty_store.h"

namespace stasis::snapshot {
namespace {

using stasis::testing::FaultyFileSystem;
using testing::blocks;
using testing::Disk;
using testing::FaultyStore;
using ::testing::HasSubstr;
using testing::Memory;
using testing::Random;
using testing::random_bytes;

constexpr uint64_t kMemorySize = 40 * kBlockSize;
constexpr uint64_t kDiskSize = 24 * kBlockSize;

struct Fault {
  int error_number;
  FaultyFileSystem::Mode mode;
};

class FaultTest : public ::testing::TestWithParam<Fault> {
 protected:
  // One run: a store with two snapshots; then, with the n-th call failing, a third is taken, the first removed, and the
  // store collected. Returns false once n is behind the last call.
  bool run(uint64_t n) {
    FaultyStore store;
    Random random(n);
    Memory memory(kMemorySize);
    BlockMap memory_map = BlockMap::zeros(kMemorySize).value();
    Disk disk(store, kDiskSize);
    std::map<SnapshotId, FaultyStore::Content> known;
    const SnapshotId first = SnapshotId::random();
    const SnapshotId second = SnapshotId::random();
    const SnapshotId third = SnapshotId::random();
    for (const SnapshotId id : {first, second}) {
      change(random, memory, disk);
      known[id] = {memory.content, disk.content};
      EXPECT_TRUE(testing::snapshot_all(store.healthy, id, memory, memory_map, disk, {memory.whole()}));
    }
    change(random, memory, disk);
    known[third] = {memory.content, disk.content};

    store.faulty.fail_at(n, GetParam().error_number, GetParam().mode);
    const Status taken = testing::snapshot_all(store.store, third, memory, memory_map, disk, {memory.whole()});
    const Status removed = store.store.remove(first);
    const auto collected = store.store.collect(std::vector<BlockMap>{memory_map, disk.map});
    const bool fired = store.faulty.fired();
    store.faulty.heal();
    for (const Status& status : {taken, removed}) {
      if (!status && status.error().code != Code::kNotFound) expect_injected(status.error());
    }
    if (!collected) expect_injected(collected.error());

    store.expect_listed_snapshots_whole(known);
    expect_reports_true(store, second, third, taken);
    if (removed) {
      EXPECT_EQ(store.healthy.load(first).error().code, Code::kNotFound);
    }

    // The disk goes on where it is, whatever happened: a snapshot of now is right.
    const SnapshotId fourth = SnapshotId::random();
    if (GetParam().mode == FaultyFileSystem::Mode::kOnce) {
      known[fourth] = {memory.content, disk.content};
      const Status again = testing::snapshot_all(store.healthy, fourth, memory, memory_map, disk, {memory.whole()});
      EXPECT_TRUE(again) << again.error().message;
      EXPECT_TRUE(store.healthy.load(fourth));
    }
    const auto recovered = store.healthy.collect(std::vector<BlockMap>{});
    EXPECT_TRUE(recovered) << recovered.error().message;
    store.expect_listed_snapshots_whole(known);
    store.expect_nothing_else();
    return fired;
  }

  static void change(Random& random, Memory& memory, Disk& disk) {
    memory.write(testing::pick(random, 0, 30) * kBlockSize, random_bytes(random, 10 * kBlockSize));
    memory.zero(blocks(testing::pick(random, 0, 38), 2));
    disk.write(testing::pick(random, 0, 20), random_bytes(random, 4 * kBlockSize));
    disk.discard(testing::pick(random, 0, 20), 3);
  }

  static void expect_injected(const Error& error) { EXPECT_THAT(error.message, HasSubstr("injected")); }

  static void expect_reports_true(const FaultyStore& store, SnapshotId second, SnapshotId third, const Status& taken) {
    EXPECT_TRUE(store.healthy.load(second)) << "nobody touched it";
    const bool listed = store.healthy.load(third).has_value();
    if (taken) {
      EXPECT_TRUE(listed);
    }
    // With a device that is gone, what has its name cannot be taken away any more; it is whole, and that was checked.
    if (!taken && GetParam().mode == FaultyFileSystem::Mode::kOnce) {
      EXPECT_FALSE(listed);
    }
  }
};

TEST_P(FaultTest, WhatIsListedIsWholeAndTheRestIsSwept) {
  uint64_t n = 1;
  while (run(n) && !HasFailure()) ++n;
  EXPECT_GT(n, 80U) << "fewer calls than a snapshot makes: the faults were not injected";
  if (HasFailure()) ADD_FAILURE() << "with call " << n << " failing; seed " << n;
}

INSTANTIATE_TEST_SUITE_P(, FaultTest,
                         ::testing::Values(Fault{EIO, FaultyFileSystem::Mode::kOnce},
                                           Fault{ENOSPC, FaultyFileSystem::Mode::kOnce},
                                           Fault{EIO, FaultyFileSystem::Mode::kFromThenOn},
                                           Fault{ENOSPC, FaultyFileSystem::Mode::kFromThenOn}));

TEST(ImportFaultTest, AnImportThatFailsLeavesNothing) {
  FaultyStore store;
  const ImageFiles files{store.dir.path() / "vmlinux", store.dir.path() / "initrd", store.dir.path() / "disk", "6.1"};
  for (const Path& path : {files.vmlinux, files.initrd, files.root_disk}) {
    testing::write_whole_file(path, testing::block_of(3));
  }
  for (uint64_t n = 1;; ++n) {
    store.faulty.fail_at(n, n % 2 == 0 ? EIO : ENOSPC);
    const auto manifest = import_image(store.store, files);
    if (!store.faulty.fired()) {
      EXPECT_TRUE(store.healthy.load(manifest.value().id));
      EXPECT_GT(n, 30U);
      break;
    }
    // A fault in cleaning up, or in what is done again anyway, may go unseen; then the import has succeeded.
    if (!manifest) {
      EXPECT_THAT(manifest.error().message, HasSubstr("injected"));
      EXPECT_THAT(store.files(), ::testing::IsEmpty()) << "call " << n;
    } else {
      ASSERT_TRUE(store.healthy.remove(manifest->id));
      ASSERT_TRUE(store.healthy.collect(std::vector<BlockMap>{}));
    }
  }
}

}  // namespace
}  // namespace stasis::snapshot
