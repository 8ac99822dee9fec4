#include "snapshot/compact_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "snapshot/testing/faulty_store.h"

namespace stasis::snapshot {
namespace {

using testing::blocks;
using testing::Disk;
using testing::FaultyStore;
using testing::Memory;
using testing::Random;
using testing::random_bytes;

constexpr int64_t kNow = 1'000 * kSettledMs;

SnapshotUse use_of(SpaceUse memory, SpaceUse disk = {1, 100 << 20, 100 << 20}) {
  return {SnapshotId::random(), 0, false, 0, memory, disk};
}

std::vector<CompactPlan> plan(const SnapshotUse& use) { return plan_compactions({use}, kNow); }

TEST(CompactPlanTest, WhatIsShortAndAliveIsLeftAlone) {
  EXPECT_TRUE(plan(use_of({1, 1 << 20, 1 << 20})).empty());
  EXPECT_TRUE(plan(use_of({kLongChain, 100 << 20, 150 << 20})).empty());
  EXPECT_TRUE(plan(use_of({0, 0, 0}, {0, 0, 0})).empty());
}

TEST(CompactPlanTest, ALongChainIsCompactedWhereSomebodyRestoresFromIt) {
  SnapshotUse use = use_of({kLongChain + 1, 100 << 20, 100 << 20});
  ASSERT_EQ(plan(use).size(), 1U);
  EXPECT_TRUE(plan(use)[0].memory);
  EXPECT_FALSE(plan(use)[0].disk);
  EXPECT_EQ(plan(use)[0].live_bytes, 100U << 20);
  use.has_children = true;
  EXPECT_TRUE(plan(use).empty());
  use.starts = 1;
  EXPECT_EQ(plan(use).size(), 1U);
}

TEST(CompactPlanTest, WhatWasPackedIsNotUnpackedForBeingStartedOften) {
  SnapshotUse use = use_of({2, 100 << 20, 20 << 20});
  use.starts = kStartedOften;
  EXPECT_EQ(plan(use).size(), 1U);
  use.memory.packed = true;
  EXPECT_TRUE(plan(use).empty());
  use.memory.own_bytes = 300 << 20;  // but for being dead
  EXPECT_EQ(plan(use).size(), 1U);
}

TEST(CompactPlanTest, DeadLayersCountOnlyIfNothingElseNeedsThem) {
  EXPECT_EQ(plan(use_of({2, 100 << 20, 202 << 20})).size(), 1U);
  EXPECT_TRUE(plan(use_of({2, 100 << 20, 0})).empty());
  const auto disk = plan(use_of({1, 1 << 20, 1 << 20}, {3, 10 << 20, 50 << 20}));
  ASSERT_EQ(disk.size(), 1U);
  EXPECT_TRUE(disk[0].disk);
  EXPECT_FALSE(disk[0].memory);
}

TEST(CompactPlanTest, WhatIsStartedOftenComesFirstAndAtOnce) {
  SnapshotUse chain = use_of({kLongChain + 1, 1 << 20, 1 << 20});
  SnapshotUse started = use_of({2, 1 << 20, 1 << 20});
  started.starts = kStartedOften;
  started.created_unix_ms = kNow;
  SnapshotUse young = use_of({kLongChain + 1, 1 << 20, 1 << 20});
  young.created_unix_ms = kNow;
  const auto plans = plan_compactions({chain, started, young}, kNow);
  ASSERT_EQ(plans.size(), 2U);
  EXPECT_EQ(plans[0].id, started.id);
  EXPECT_EQ(plans[1].id, chain.id);
  started.memory.layers = 1;
  EXPECT_TRUE(plan(started).empty());
}

TEST(CompactPlanTest, TheSurveySeesWhoSharesAndWhoStandsOnWhat) {
  FaultyStore store;
  Random random(1);
  Memory memory(40 * kBlockSize);
  BlockMap map = BlockMap::zeros(memory.content.size()).value();
  Disk disk(store, 10 * kBlockSize);
  const auto take = [&] {
    const SnapshotId id = SnapshotId::random();
    EXPECT_TRUE(testing::snapshot_all(store.healthy, id, memory, map, disk, {memory.whole()}));
    return id;
  };
  memory.write(0, random_bytes(random, 10 * kBlockSize));
  const SnapshotId first = take();
  const BlockMap first_map = map;
  memory.write(5 * kBlockSize, random_bytes(random, 20 * kBlockSize));
  const SnapshotId second = take();

  const auto uses = survey(store.healthy, {}, [&](SnapshotId id) { return id == first ? 7U : 0U; });
  ASSERT_TRUE(uses) << uses.error().message;
  ASSERT_EQ(uses->size(), 2U);
  const auto& of_first = (*uses)[0].id == first ? (*uses)[0] : (*uses)[1];
  const auto& of_second = (*uses)[0].id == first ? (*uses)[1] : (*uses)[0];
  EXPECT_EQ(of_first.starts, 7U);
  EXPECT_EQ(of_first.memory.layers, 1U);
  EXPECT_EQ(of_first.memory.own_bytes, 0U) << "its layer is the second's too";
  EXPECT_EQ(of_second.id, second);
  EXPECT_EQ(of_second.memory.layers, 2U);
  EXPECT_EQ(of_second.memory.live_bytes, 25 * kBlockSize);
  EXPECT_EQ(of_second.memory.own_bytes, 20 * kBlockSize);

  ASSERT_TRUE(store.healthy.remove(first));
  const auto alone = survey(store.healthy, {}, [](SnapshotId) { return 0U; });
  EXPECT_EQ(alone->at(0).memory.own_bytes, 30 * kBlockSize);
  const std::vector<BlockMap> roots{first_map};
  const auto beside = survey(store.healthy, roots, [](SnapshotId) { return 0U; });
  EXPECT_EQ(beside->at(0).memory.own_bytes, 20 * kBlockSize) << "a sandbox stands on the other layer";
  EXPECT_FALSE(beside->at(0).memory.packed);
  ASSERT_TRUE(compact(store.healthy, second, {.form = LayerForm::kPacked}));
  const auto packed = survey(store.healthy, {}, [](SnapshotId) { return 0U; });
  EXPECT_TRUE(packed->at(0).memory.packed);
}

}  // namespace
}  // namespace stasis::snapshot
