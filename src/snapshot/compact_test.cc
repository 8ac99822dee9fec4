// Compaction: what is copied, and what stays.
#include "snapshot/compact.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "base/poll.h"
#include "snapshot/staging.h"
#include "snapshot/testing/chain_guest.h"
#include "snapshot/working_set.h"

namespace stasis::snapshot {
namespace {

using testing::blocks;
using testing::Bytes;
using testing::Disk;
using testing::FaultyStore;
using Guest = testing::ChainGuest;
using ::testing::HasSubstr;
using ::testing::IsSupersetOf;
using testing::Memory;
using testing::memory_map_of;
using testing::Random;
using testing::random_bytes;

TEST(CompactTest, OneLayerForEachAddressSpaceWithTheSameContentAndIdentity) {
  FaultyStore store;
  Guest guest(store, 1);
  guest.memory.write(0, random_bytes(guest.random, 100 * kBlockSize));
  const SnapshotId id = guest.chain(6);
  const Manifest before = store.healthy.load(id).value();
  const BlockMap map_before = memory_map_of(store.healthy, id);
  ASSERT_GT(map_before.layers().size(), 3U);

  const auto result = compact(store.healthy, id);
  ASSERT_TRUE(result) << result.error().message;
  EXPECT_EQ(result->spaces, 2U);
  EXPECT_GE(result->layers_before, 8U);
  EXPECT_GE(result->read_bytes, result->live_bytes);

  const BlockMap map = memory_map_of(store.healthy, id);
  EXPECT_EQ(map.layers().size(), 1U);
  EXPECT_EQ(map.metadata(), map_before.metadata());
  EXPECT_EQ(live_bytes(map), live_bytes(map_before)) << "zeros stay zeros";
  Manifest after = store.healthy.load(id).value();
  EXPECT_NE(after.memory_map, before.memory_map);
  after.memory_map = before.memory_map;
  after.disk_map = before.disk_map;
  EXPECT_EQ(after, before);
  store.expect_listed_snapshots_whole(guest.known);

  // The layer holds the live blocks and nothing else.
  const auto sums = store.files().contains("layers/" + map.layers()[0].text() + ".raw");
  EXPECT_TRUE(sums);
  const auto info = real_file_system().info(layer_data_path(store.healthy.layers_dir(), map.layers()[0])).value();
  EXPECT_EQ(info.stored_bytes, live_bytes(map));
  EXPECT_EQ(info.size, Guest::kMemorySize);

  ASSERT_TRUE(store.healthy.collect(guest.roots()));
  store.expect_nothing_else(guest.roots());
  EXPECT_EQ(compact(store.healthy, id)->spaces, 0U) << "nothing is left to gain";
}

TEST(CompactTest, ASnapshotTakenOnTheOldMapAndOneOnTheNewAreRight) {
  FaultyStore store;
  Guest guest(store, 2);
  const SnapshotId parent = guest.chain(4);
  ASSERT_TRUE(compact(store.healthy, parent));
  ASSERT_TRUE(store.healthy.collect(guest.roots()));
  guest.chain(2);  // it stands on the old map, which its roots have kept
  store.expect_listed_snapshots_whole(guest.known);

  // A guest that is restored from the compacted snapshot goes on from the one layer.
  guest.memory_map = memory_map_of(store.healthy, parent);
  guest.memory.write(0, guest.known[parent].memory);
  guest.change();
  const SnapshotId child = guest.snapshot();
  EXPECT_EQ(memory_map_of(store.healthy, child).layers().size(), 2U);
  EXPECT_EQ(memory_map_of(store.healthy, child).metadata().base_id, memory_map_of(store.healthy, parent).metadata().id);
  ASSERT_TRUE(store.healthy.collect(std::vector<BlockMap>{}));
  store.expect_listed_snapshots_whole(guest.known);
}

TEST(CompactTest, AMostlyDeadSingleLayerIsRewrittenAndAWholeOneIsNot) {
  FaultyStore store;
  Memory memory(8 << 20);
  Random random(3);
  memory.write(0, random_bytes(random, 8 << 20));
  BlockMap map = BlockMap::zeros(8 << 20).value();
  Disk disk(store, Guest::kDiskSize);
  const SnapshotId whole = SnapshotId::random();
  ASSERT_TRUE(testing::snapshot_all(store.healthy, whole, memory, map, disk, {memory.whole()}));
  EXPECT_EQ(compact(store.healthy, whole)->spaces, 0U);

  memory.zero({0, 7 << 20});  // names no new layer: zeros cost nothing
  const SnapshotId dead = SnapshotId::random();
  ASSERT_TRUE(testing::snapshot_all(store.healthy, dead, memory, map, disk, {memory.whole()}));
  ASSERT_TRUE(store.healthy.remove(whole));
  const auto result = compact(store.healthy, dead);
  ASSERT_TRUE(result) << result.error().message;
  EXPECT_EQ(result->spaces, 1U);
  EXPECT_EQ(result->live_bytes, 1U << 20);
  const auto collected = store.healthy.collect(std::vector<BlockMap>{});
  EXPECT_EQ(collected->layers_removed, 1U);
  EXPECT_GE(collected->bytes_freed, 8U << 20);
}

TEST(CompactTest, WhoHasReadTheOldManifestFindsEverything) {
  FaultyStore store;
  Guest guest(store, 4);
  const SnapshotId id = guest.chain(4);
  {
    const StoreLock reader = store.healthy.lock_shared().value();
    const Manifest old = store.healthy.load(id).value();
    ASSERT_TRUE(compact(store.healthy, id));
    EXPECT_EQ(store.healthy.collect(std::vector<BlockMap>{}).error().code, Code::kAborted);
    const auto map = store.healthy.read_map(id, *old.memory_map);
    ASSERT_TRUE(map) << map.error().message;
    const auto space = AddressSpace::open(store.quiet, store.healthy.layers_dir(), *map);
    ASSERT_TRUE(space) << space.error().message;
    EXPECT_EQ(testing::read_all(**space), guest.known[id].memory);
  }
  ASSERT_TRUE(store.healthy.collect(std::vector<BlockMap>{}));
  store.expect_listed_snapshots_whole(guest.known);
  store.expect_nothing_else();
}

TEST(CompactTest, ASnapshotThatIsRemovedMeanwhileStaysRemoved) {
  FaultyStore store;
  Guest guest(store, 5);
  const SnapshotId id = guest.chain(3);
  const SnapshotId other = guest.chain(1);
  std::thread remover;
  const Event never = Event::create().value();
  CompactOptions options;
  options.limit = RateLimit(16 << 20, never.fd());
  remover = std::thread([&] {
    ASSERT_TRUE(store.healthy.remove(id));
    (void)store.healthy.collect(guest.roots());
  });
  const auto result = compact(store.healthy, id, options);
  remover.join();
  EXPECT_EQ(store.healthy.load(id).error().code, Code::kNotFound) << "whoever was first";
  if (!result) {
    EXPECT_EQ(result.error().code, Code::kNotFound) << result.error().message;
  }
  EXPECT_TRUE(store.healthy.load(other));
  guest.known.erase(id);
  ASSERT_TRUE(store.healthy.collect(guest.roots()));
  store.expect_nothing_else(guest.roots());
}

TEST(CompactTest, CancelledLeavesNothing) {
  FaultyStore store;
  Guest guest(store, 6);
  const SnapshotId id = guest.chain(3);
  const auto before = store.files();
  const Event cancel = Event::create().value();
  cancel.set();
  CompactOptions options;
  options.limit = RateLimit(0, cancel.fd());
  const auto result = compact(store.healthy, id, options);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, Code::kCancelled);
  EXPECT_EQ(store.files(), before);
}

TEST(CompactTest, ADamagedFrameStopsItAndIsNotCopied) {
  FaultyStore store;
  Guest guest(store, 7);
  const SnapshotId id = guest.chain(3);
  const BlockMap map = memory_map_of(store.healthy, id);
  const auto extents = map.extents();
  const auto live = std::find_if(extents.begin(), extents.end(), [](const Extent& e) { return !e.is_zero(); });
  testing::damage_file(layer_data_path(store.healthy.layers_dir(), live->layer), live->layer_offset + 17);
  const auto before = store.files();
  const auto result = compact(store.healthy, id);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, Code::kDataLoss);
  EXPECT_THAT(result.error().message, HasSubstr("is damaged"));
  EXPECT_THAT(result.error().message, HasSubstr(id.text()));
  EXPECT_EQ(store.files(), before);
  EXPECT_EQ(memory_map_of(store.healthy, id).layers().size(), map.layers().size());
}

TEST(CompactTest, TwoAtOnceOnOneSnapshotLeaveOneResult) {
  FaultyStore store;
  Guest guest(store, 8);
  const SnapshotId id = guest.chain(5);
  std::vector<std::thread> threads;
  threads.reserve(3);
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      const auto result = compact(store.healthy, id);
      if (!result) {
        EXPECT_EQ(result.error().code, Code::kAborted) << result.error().message;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(memory_map_of(store.healthy, id).layers().size(), 1U);
  ASSERT_TRUE(store.healthy.collect(guest.roots()));
  store.expect_listed_snapshots_whole(guest.known);
  store.expect_nothing_else(guest.roots());
}

std::vector<std::string> names_of(const CollectStats& stats) {
  std::vector<std::string> names;
  names.reserve(stats.removed.size());
  for (const auto& removed : stats.removed) names.push_back(removed.file);
  return names;
}

TEST(CompactTest, WhatItAndADeadMakerLeaveIsToldByADryRunAndTakenByACollection) {
  FaultyStore store;
  Guest guest(store, 10);
  const SnapshotId id = guest.chain(4);
  const WorkingSet touched{Guest::kMemorySize, 1, {{blocks(3, 2), 5}}};
  ASSERT_TRUE(keep_working_set(store.healthy, id, touched));
  ASSERT_TRUE(compact(store.healthy, id));
  const auto dead = staging_dir(store.healthy) / "compact-dead";
  std::filesystem::create_directories(dead);
  testing::write_whole_file(dead / "layer", Bytes(10'000, std::byte{1}));
  const auto before = store.files();
  {
    const auto at_work = Staging::open(store.healthy, "at-work");
    ASSERT_TRUE(at_work);
    const auto young = store.healthy.collect(guest.roots(), {false, std::chrono::hours(1), 0});
    ASSERT_TRUE(young) << young.error().message;
    EXPECT_TRUE(names_of(*young).empty());
    EXPECT_GE(young->files_kept, 3U);
    const auto planned = store.healthy.collect(guest.roots(), {.dry_run = true});
    ASSERT_TRUE(planned) << planned.error().message;
    EXPECT_EQ(store.files(), before);
    const std::string directory = "snapshots/" + id.text() + "/";
    EXPECT_THAT(names_of(*planned),
                IsSupersetOf({std::string("staging/compact-dead"), directory + "memory.map", directory + "disk.map"}));
    const auto done = store.healthy.collect(guest.roots());
    ASSERT_TRUE(done) << done.error().message;
    EXPECT_EQ(names_of(*done), names_of(*planned));
    EXPECT_EQ(done->bytes_freed, planned->bytes_freed);
    EXPECT_TRUE(std::filesystem::exists(at_work->directory()));
  }
  EXPECT_FALSE(std::filesystem::exists(dead));
  const auto kept = load_working_set(store.healthy, id);
  ASSERT_TRUE(kept) << kept.error().message;
  EXPECT_EQ(kept->entries, touched.entries);
  store.expect_listed_snapshots_whole(guest.known);
}

TEST(PackTest, PackedAndUnpackedTheContentIsTheSame) {
  FaultyStore store;
  Guest guest(store, 20);
  guest.memory.write(0, Bytes(200 * kBlockSize, std::byte{7}));  // compresses well
  const SnapshotId id = guest.chain(3);
  const BlockMap before = memory_map_of(store.healthy, id);

  const auto packed = compact(store.healthy, id, {.form = LayerForm::kPacked});
  ASSERT_TRUE(packed) << packed.error().message;
  EXPECT_EQ(packed->spaces, 2U);
  EXPECT_LT(packed->stored_after, packed->stored_before);
  EXPECT_LT(packed->stored_after, packed->live_bytes);
  const BlockMap map = memory_map_of(store.healthy, id);
  ASSERT_EQ(map.layers().size(), 1U);
  EXPECT_EQ(map.metadata(), before.metadata());
  EXPECT_EQ(live_bytes(map), live_bytes(before));
  const auto layer = Layer::open(store.quiet, store.healthy.layers_dir(), map.layers()[0]);
  ASSERT_TRUE(layer) << layer.error().message;
  EXPECT_FALSE((*layer)->can_be_mapped());
  store.expect_listed_snapshots_whole(guest.known);
  EXPECT_EQ(compact(store.healthy, id, {.form = LayerForm::kPacked})->spaces, 0U) << "it is packed";
  ASSERT_TRUE(store.healthy.collect(guest.roots()));
  store.expect_nothing_else(guest.roots());

  // A guest goes on from it, and its next snapshot has a packed layer below a raw one.
  guest.memory_map = map;
  guest.memory.write(0, guest.known[id].memory);
  const SnapshotId child = guest.chain(1);
  EXPECT_EQ(memory_map_of(store.healthy, child).layers().size(), 2U);
  store.expect_listed_snapshots_whole(guest.known);

  const auto raw = compact(store.healthy, id);
  ASSERT_TRUE(raw) << raw.error().message;
  EXPECT_EQ(raw->spaces, 2U);
  const auto file = find_layer(store.quiet, store.healthy.layers_dir(), memory_map_of(store.healthy, id).layers()[0]);
  EXPECT_EQ(file->form, LayerForm::kRaw);
  ASSERT_TRUE(store.healthy.collect(guest.roots()));
  store.expect_listed_snapshots_whole(guest.known);
  store.expect_nothing_else(guest.roots());
}

TEST(PackTest, LayersThatOthersNeedStayAsTheyAre) {
  FaultyStore store;
  Guest guest(store, 21);
  const SnapshotId parent = guest.chain(2);
  const SnapshotId child = guest.chain(2);
  const BlockMap shared = memory_map_of(store.healthy, parent);
  CompactOptions options;
  options.form = LayerForm::kPacked;
  options.keep.insert(shared.layers().begin(), shared.layers().end());
  options.disk = false;
  const auto result = compact(store.healthy, child, options);
  ASSERT_TRUE(result) << result.error().message;
  EXPECT_EQ(result->spaces, 1U);
  size_t packed = 0;
  const BlockMap map = memory_map_of(store.healthy, child);
  for (const LayerId layer : map.layers()) {
    const auto file = find_layer(store.quiet, store.healthy.layers_dir(), layer);
    ASSERT_TRUE(file);
    packed += file->form == LayerForm::kPacked ? 1 : 0;
    EXPECT_EQ(file->form == LayerForm::kPacked, !options.keep.contains(layer));
  }
  EXPECT_EQ(packed, 1U);
  store.expect_listed_snapshots_whole(guest.known);
  EXPECT_EQ(compact(store.healthy, child, options)->spaces, 0U);
  guest.chain(1);
  ASSERT_TRUE(store.healthy.collect(guest.roots()));
  store.expect_listed_snapshots_whole(guest.known);
  store.expect_nothing_else(guest.roots());
}

}  // namespace
}  // namespace stasis::snapshot
