#include "snapshot/working_set.h"

#include <gmock/gmock.h>

#include <array>

#include "snapshot/testing/fixtures.h"
#include "snapshot/testing/reseal.h"

namespace stasis::snapshot {
namespace {

using testing::blocks;
using testing::Bytes;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr uint64_t kSize = 100 * kBlockSize;

WorkingSet example() { return {kSize, 1, {{blocks(7, 2), 0}, {blocks(99, 1), 15}, {blocks(0, 3), 4'000'000'000}}}; }

TEST(WorkingSetTest, ReadsBackAsItWasWritten) {
  const auto bytes = example().encode();
  ASSERT_TRUE(bytes);
  const auto set = WorkingSet::decode(*bytes);
  ASSERT_TRUE(set) << set.error().message;
  EXPECT_EQ(set->memory_size, kSize);
  EXPECT_EQ(set->restores, 1U);
  EXPECT_EQ(set->entries, example().entries);
}

TEST(WorkingSetTest, EveryFlippedBitAndEveryCutIsFound) {
  const Bytes whole = example().encode().value();
  for (size_t bit = 0; bit < whole.size() * 8; ++bit) {
    Bytes damaged = whole;
    damaged[bit / 8] ^= std::byte{1} << (bit % 8);
    EXPECT_FALSE(WorkingSet::decode(damaged)) << bit;
  }
  for (size_t length = 0; length < whole.size(); ++length) {
    EXPECT_FALSE(WorkingSet::decode(std::span(whole).first(length))) << length;
  }
}

TEST(WorkingSetTest, WhatNoWriterMakesIsRefused) {
  const auto refused = [](size_t offset, uint32_t value) {
    Bytes bytes = example().encode().value();
    std::memcpy(bytes.data() + offset, &value, sizeof(value));
    testing::Resealer(bytes).working_set();
    const auto set = WorkingSet::decode(bytes);
    return set ? std::string() : set.error().message;
  };
  EXPECT_THAT(refused(8, 2), HasSubstr("version"));
  EXPECT_THAT(refused(12, 4), HasSubstr("wrong length"));
  EXPECT_THAT(refused(16, 5), HasSubstr("whole blocks"));
  EXPECT_THAT(refused(36, 99), HasSubstr("outside"));   // two blocks from the last one on
  EXPECT_THAT(refused(40, 0), HasSubstr("outside"));    // no blocks
  EXPECT_THAT(refused(36, 100), HasSubstr("outside"));  // behind the end
  EXPECT_EQ(refused(36, 98), "");
}

TEST(WorkingSetTest, LimitsHoldForTheWriterToo) {
  WorkingSet set{kSize, 1, std::vector<WorkingSetEntry>(kMaxWorkingSetEntries, {blocks(0, 1), 0})};
  EXPECT_TRUE(set.encode());
  set.entries.push_back({blocks(0, 1), 0});
  EXPECT_EQ(set.encode().error().code, Code::kInvalidArgument);
  EXPECT_EQ((WorkingSet{kSize, 1, {{blocks(99, 2), 0}}}).encode().error().code, Code::kInvalidArgument);
  EXPECT_EQ((WorkingSet{kSize + 1, 1, {}}).encode().error().code, Code::kInvalidArgument);
}

TEST(WorkingSetTest, PrefetchIsSortedMergedAndCapped) {
  const std::vector<WorkingSetEntry> entries{
      {blocks(50, 4), 0}, {blocks(10, 2), 1}, {blocks(54, 1), 2}, {blocks(52, 4), 3}, {blocks(0, 1), 4}};
  EXPECT_THAT(prefetch_ranges(entries, UINT64_MAX), ElementsAre(blocks(0, 1), blocks(10, 2), blocks(50, 6)));
  EXPECT_THAT(prefetch_ranges(entries, 7 * kBlockSize), ElementsAre(blocks(10, 2), blocks(50, 5)));
  // Of the entry that does not fit its beginning, in whole blocks; a later one does not come in its place.
  EXPECT_THAT(prefetch_ranges(entries, 8 * kBlockSize), ElementsAre(blocks(10, 2), blocks(50, 5)));
  EXPECT_THAT(prefetch_ranges(entries, 9 * kBlockSize), ElementsAre(blocks(10, 2), blocks(50, 5)));
  EXPECT_THAT(prefetch_ranges(entries, 3 * kBlockSize), ElementsAre(blocks(50, 3)));
  EXPECT_THAT(prefetch_ranges(entries, 3 * kBlockSize + 1), ElementsAre(blocks(50, 3)));
  EXPECT_THAT(prefetch_ranges(entries, kBlockSize - 1), IsEmpty());
}

TEST(WorkingSetTest, TheIntersectionHasWhatBothTouchedInTheFirstOnesOrder) {
  const WorkingSet first{kSize, 2, {{blocks(50, 10), 5}, {blocks(0, 4), 9}, {blocks(20, 1), 10}}};
  const WorkingSet second{kSize, 1, {{blocks(2, 50), 1}, {blocks(58, 10), 2}}};
  const WorkingSet both = intersect(first, second);
  EXPECT_EQ(both.restores, 3U);
  EXPECT_THAT(both.entries, ElementsAre(WorkingSetEntry{blocks(50, 2), 5}, WorkingSetEntry{blocks(58, 2), 5},
                                        WorkingSetEntry{blocks(2, 2), 9}, WorkingSetEntry{blocks(20, 1), 10}));
}

class WorkingSetFileTest : public testing::StoreTest {
 protected:
  SnapshotId publish() {
    Manifest manifest;
    manifest.id = SnapshotId::random();
    EXPECT_TRUE(store_.begin(manifest.id));
    EXPECT_TRUE(store_.publish(manifest));
    return manifest.id;
  }
};

TEST_F(WorkingSetFileTest, IsKeptBesideItsSnapshotAndGoesWithIt) {
  const SnapshotId id = publish();
  EXPECT_EQ(load_working_set(store_, id).error().code, Code::kNotFound);
  ASSERT_TRUE(keep_working_set(store_, id, example()));
  WorkingSet other = example();
  other.restores = 2;
  ASSERT_TRUE(keep_working_set(store_, id, other));
  EXPECT_EQ(load_working_set(store_, id)->restores, 2U);
  ASSERT_TRUE(store_.collect({}));
  EXPECT_TRUE(load_working_set(store_, id));
  ASSERT_TRUE(store_.remove(id));
  EXPECT_FALSE(exists(fs_, store_.snapshot_dir(id)));
  EXPECT_EQ(keep_working_set(store_, id, example()).error().code, Code::kNotFound);
  EXPECT_FALSE(exists(fs_, store_.snapshot_dir(id)));
}

TEST_F(WorkingSetFileTest, TheFirstGuessIsWhatTheGenerationChanged) {
  testing::Memory memory(kSize);
  const auto zeros = open(BlockMap::zeros(kSize).value());
  memory.write(0, Bytes(kSize, std::byte{1}));
  const auto first = take(memory, {memory.whole()}, *zeros);
  ASSERT_TRUE(first);
  memory.write(30 * kBlockSize, Bytes(5 * kBlockSize, std::byte{2}));
  memory.write(60 * kBlockSize, Bytes(kBlockSize, std::byte{2}));
  const auto second = take(memory, {memory.whole()}, *open(first->map));
  ASSERT_TRUE(second);
  const SnapshotId id = SnapshotId::random();
  ASSERT_TRUE(store_.begin(id));
  const std::array<WorkingSetEntry, 2> touched{{{blocks(90, 2), 7}, {blocks(33, 4), 8}}};
  ASSERT_TRUE(write_first_guess(store_, id, second->map, second->layer->id, touched));
  const auto guess = load_working_set(store_, id);
  ASSERT_TRUE(guess);
  EXPECT_EQ(guess->restores, 0U);
  EXPECT_THAT(prefetch_ranges(guess->entries, kMaxPrefetchBytes),
              ElementsAre(blocks(30, 7), blocks(60, 1), blocks(90, 2)));
}

}  // namespace
}  // namespace stasis::snapshot
