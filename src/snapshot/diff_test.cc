#include "snapshot/diff.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "snapshot/testing/published.h"

namespace stasis::snapshot {
namespace {

using testing::block_of;
using testing::blocks;
using testing::Bytes;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

class DiffTest : public testing::PublishTest {
 protected:
  SpaceDiff diff(const BlockMap& a, const BlockMap& b) {
    auto result = snapshot::diff(*open(a), *open(b), [] { return true; });
    EXPECT_TRUE(result) << result.error().message;
    return std::move(*result);
  }
};

TEST_F(DiffTest, ExactlyTheBlocksThatChanged) {
  const BlockMap before = map_of(publish_first());
  memory_.write(3 * kBlockSize, block_of(1));
  memory_.write(4 * kBlockSize, block_of(2));
  memory_.zero(blocks(100, 2));
  const BlockMap after = map_of(publish(before));
  const SpaceDiff forth = diff(before, after);
  EXPECT_THAT(forth.changed, ElementsAre(blocks(3, 2), blocks(100, 2)));
  EXPECT_EQ(forth.runs, 2U);
  EXPECT_EQ(forth.changed_bytes, 4 * kBlockSize);
  EXPECT_EQ(forth.became_zero_bytes, 2 * kBlockSize);
  EXPECT_EQ(forth.became_data_bytes, 0U);
  EXPECT_EQ(forth.compared_bytes, 4 * kBlockSize);
  EXPECT_EQ(forth.same_source_bytes, 252 * kBlockSize);
  const SpaceDiff back = diff(after, before);
  EXPECT_EQ(back.changed, forth.changed);
  EXPECT_EQ(back.became_data_bytes, 2 * kBlockSize);
}

TEST_F(DiffTest, WhatIsSharedIsNotReadEvenIfItIsDamaged) {
  const Manifest first = publish_first();
  memory_.write(0, block_of(1));
  const BlockMap after = map_of(publish_next(first));
  const Path file = layer_data_path(store_.layers_dir(), only_layer(first));
  testing::damage_file(file, 20 * kFrameSize / 2);
  EXPECT_THAT(diff(map_of(first), after).changed, ElementsAre(blocks(0, 1)));
  testing::damage_file(file, 0);
  const auto damaged = snapshot::diff(*open(map_of(first)), *open(after), [] { return true; });
  EXPECT_EQ(damaged.error().code, Code::kDataLoss);
}

TEST_F(DiffTest, EqualBytesOfDifferentLayersAreEqual) {
  const BlockMap one = map_of(publish_first());
  const BlockMap two = map_of(publish_first());
  const SpaceDiff result = diff(one, two);
  EXPECT_THAT(result.changed, IsEmpty());
  EXPECT_EQ(result.compared_bytes, 1U << 20);
  EXPECT_EQ(diff(one, one).same_source_bytes, 1U << 20);
}

TEST_F(DiffTest, ADiskThatGrewIsHeldAgainstZeros) {
  const BlockMap small = map_of(publish_first());
  const BlockMap large = small.grow(2 << 20).value();
  EXPECT_THAT(diff(small, large).changed, IsEmpty());
  testing::Memory memory(2 << 20);
  memory.write(0, memory_.content);
  memory.write(300 * kBlockSize, block_of(1));
  const auto grown = take(memory, {memory.whole()}, *open(large));
  ASSERT_TRUE(grown);
  EXPECT_THAT(diff(small, grown->map).changed, ElementsAre(blocks(300, 1)));
  EXPECT_THAT(diff(grown->map, small).changed, ElementsAre(blocks(300, 1)));
}

TEST_F(DiffTest, TheListOfRunsIsBoundedAndTheCountIsNot) {
  constexpr uint64_t kBlocks = 3 * kMaxRanges;
  testing::Memory memory(kBlocks * kBlockSize);
  for (uint64_t i = 0; i < kBlocks; i += 2) memory.write(i * kBlockSize, block_of(1));
  const BlockMap zeros = BlockMap::zeros(kBlocks * kBlockSize).value();
  const auto taken = take(memory, {memory.whole()}, *open(zeros));
  const SpaceDiff result = diff(zeros, taken->map);
  EXPECT_EQ(result.runs, kBlocks / 2);
  EXPECT_EQ(result.changed.size(), kMaxRanges);
  EXPECT_EQ(result.became_data_bytes, kBlocks / 2 * kBlockSize);
}

TEST_F(DiffTest, ItCanBeEnded) {
  const BlockMap one = map_of(publish_first());
  const BlockMap two = map_of(publish_first());
  EXPECT_EQ(snapshot::diff(*open(one), *open(two), [] { return false; }).error().code, Code::kCancelled);
}

}  // namespace
}  // namespace stasis::snapshot
