#include "agent/warm_bases.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <fstream>

#include "base/testing/temp_dir.h"

namespace stasis::agent {
namespace {

using snapshot::SnapshotId;

constexpr uint64_t kMiB = 1 << 20;

class WarmBasesTest : public ::testing::Test {
 protected:
  WarmBases open() {
    return {store_, dir_.path() / "warm.json", std::array{image_}, [this]() -> Result<DiskSpace> { return space_; }};
  }
  WarmKey key(uint32_t memory_mib) const { return {image_, 1, memory_mib, 0, "qemu"}; }
  void publish(SnapshotId id) {
    ASSERT_TRUE(store_.begin(id));
    snapshot::Manifest manifest;
    manifest.id = id;
    manifest.memory.stored_bytes = stored_bytes_;
    manifest.disk.stored_bytes = stored_bytes_;
    ASSERT_TRUE(store_.publish(manifest));
  }
  SnapshotId make(WarmBases& bases, const WarmKey& key) {
    const auto id = bases.begin(key);
    EXPECT_TRUE(id);
    publish(*id);
    bases.done(key, true);
    return *id;
  }
  bool is_there(SnapshotId id) const { return store_.load(id).has_value(); }

  DiskSpace space_{1000 * kMiB, 500 * kMiB};
  uint64_t stored_bytes_ = 0;  // of memory and of disk, of what is published next
  testing::TempDir dir_;
  snapshot::Store store_ = snapshot::Store::open(real_file_system(), dir_.path() / "store").value();
  SnapshotId image_ = SnapshotId::random();
};

TEST_F(WarmBasesTest, OneForEachShapeOnceItIsTaken) {
  WarmBases bases = open();
  EXPECT_FALSE(bases.find(key(256)));
  const auto id = bases.begin(key(256));
  ASSERT_TRUE(id);
  EXPECT_FALSE(bases.begin(key(256)));  // somebody is at it
  EXPECT_FALSE(bases.find(key(256)));
  EXPECT_TRUE(bases.contains(*id));
  publish(*id);
  bases.done(key(256), true);
  EXPECT_EQ(bases.find(key(256)), id);
  EXPECT_FALSE(bases.find(key(512)));
  EXPECT_FALSE(bases.contains(SnapshotId::random()));
}

TEST_F(WarmBasesTest, OneThatFailedOrDoesNotRestoreIsGoneAndMayBeMadeAgain) {
  WarmBases bases = open();
  const auto failed = bases.begin(key(256));
  publish(*failed);  // the answer was lost
  bases.done(key(256), false);
  EXPECT_FALSE(is_there(*failed));
  const SnapshotId made = make(bases, key(256));
  bases.drop(key(256));
  EXPECT_FALSE(is_there(made));
  EXPECT_TRUE(bases.begin(key(256)));
}

TEST_F(WarmBasesTest, TheOneNotUsedForLongestMakesRoom) {
  WarmBases bases = open();
  std::vector<SnapshotId> ids;
  for (uint32_t i = 0; i < WarmBases::kMax; ++i) ids.push_back(make(bases, key(128 + i)));
  EXPECT_EQ(bases.find(key(128)), ids[0]);
  make(bases, key(1000));
  EXPECT_TRUE(is_there(ids[0]));
  EXPECT_FALSE(is_there(ids[1]));
  EXPECT_FALSE(bases.find(key(129)));
}

TEST_F(WarmBasesTest, TogetherTheyHaveATenthOfTheDiskAndTheNewestStays) {
  WarmBases bases = open();
  stored_bytes_ = 20 * kMiB;
  const SnapshotId first = make(bases, key(128));
  const SnapshotId second = make(bases, key(129));
  EXPECT_EQ(bases.find(key(128)), first);  // used after the second
  const SnapshotId third = make(bases, key(130));
  EXPECT_TRUE(is_there(first));
  EXPECT_FALSE(is_there(second));
  EXPECT_TRUE(is_there(third));
  stored_bytes_ = 60 * kMiB;
  const SnapshotId large = make(bases, key(131));
  EXPECT_FALSE(is_there(first));
  EXPECT_FALSE(is_there(third));
  EXPECT_EQ(bases.find(key(131)), large);
}

TEST_F(WarmBasesTest, WhileTheDiskIsShortNoneIsMadeAndTheLeastRecentlyUsedGo) {
  WarmBases bases = open();
  stored_bytes_ = 10 * kMiB;
  const SnapshotId first = make(bases, key(128));
  const SnapshotId second = make(bases, key(129));
  space_.free_bytes = 99 * kMiB;
  EXPECT_FALSE(bases.begin(key(130)));
  EXPECT_FALSE(is_there(first));
  EXPECT_EQ(bases.find(key(129)), second);
  space_.free_bytes = 100 * kMiB;
  EXPECT_TRUE(bases.begin(key(130)));
}

TEST_F(WarmBasesTest, ThoseOfAnotherVmmGoWhenOneOfThisIsMade) {
  WarmBases bases = open();
  WarmKey former = key(256);
  former.vmm = "qemu of yesterday";
  const SnapshotId useless = make(bases, former);
  EXPECT_FALSE(bases.find(key(256)));
  const SnapshotId made = make(bases, key(512));
  EXPECT_FALSE(is_there(useless));
  EXPECT_EQ(bases.find(key(512)), made);
}

TEST_F(WarmBasesTest, AreFoundAgainAndWhatIsUselessIsRemoved) {
  SnapshotId good;
  SnapshotId of_old_image;
  SnapshotId unfinished;
  {
    WarmBases bases = open();
    good = make(bases, key(256));
    WarmKey old = key(256);
    old.image = SnapshotId::random();
    of_old_image = make(bases, old);
    unfinished = *bases.begin(key(512));  // and then this process dies
  }
  WarmBases bases = open();
  EXPECT_EQ(bases.find(key(256)), good);
  EXPECT_FALSE(is_there(of_old_image));
  EXPECT_TRUE(bases.contains(unfinished));
  bases.settle();
  EXPECT_FALSE(bases.contains(unfinished));
  EXPECT_TRUE(bases.begin(key(512)));
}

TEST_F(WarmBasesTest, WhatASupervisorFinishedWithoutItsAgentIsKeptOrRemovedOnceItIsThere) {
  WarmKey old = key(256);
  old.image = SnapshotId::random();
  SnapshotId good;
  SnapshotId of_old_image;
  {
    WarmBases bases = open();
    good = *bases.begin(key(256));
    of_old_image = *bases.begin(old);
  }
  (void)open();  // an agent that ends before the supervisors have answered
  WarmBases bases = open();
  const auto own = bases.begin(key(512));
  EXPECT_FALSE(bases.find(key(256)));
  EXPECT_FALSE(bases.begin(key(256)));
  publish(good);
  publish(of_old_image);
  bases.settle();
  EXPECT_EQ(bases.find(key(256)), good);
  EXPECT_FALSE(is_there(of_old_image));
  EXPECT_TRUE(bases.contains(*own)) << "that one is being made by this agent";
}

TEST_F(WarmBasesTest, AFileOfNonsenseIsAnEmptyOne) {
  for (const char* text : {"", "{", "[1,{}]", R"([{"image":"x","snapshot":7}])", R"({"a":1})"}) {
    std::ofstream(dir_.path() / "warm.json") << text;
    WarmBases bases = open();
    EXPECT_FALSE(bases.find(key(256))) << text;
  }
}

}  // namespace
}  // namespace stasis::agent
