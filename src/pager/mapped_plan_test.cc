#include "pager/mapped_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "snapshot/capture.h"
#include "snapshot/packed_layer.h"
#include "snapshot/ranges.h"
#include "snapshot/testing/fixtures.h"
#include "snapshot/verified.h"

namespace stasis::pager {
namespace {

using snapshot::AddressSpace;
using snapshot::BlockMap;
using snapshot::kBlockSize;
using snapshot::LayerId;
using snapshot::testing::blocks;
using snapshot::testing::Bytes;
using ::testing::HasSubstr;

constexpr uint64_t kBlocks = 4096;

bool anything_is_whole(LayerId) { return true; }

class MappedPlanTest : public snapshot::testing::StoreTest {
 protected:
  // Memory with data in these ranges, over what there was: the next generation.
  std::shared_ptr<AddressSpace> generation(const std::vector<Range>& data, const std::vector<Range>& zeros = {}) {
    std::vector<Range> touched = data;
    for (const Range& range : data) memory_.write(range.offset, snapshot::testing::random_bytes(random_, range.length));
    for (const Range& range : zeros) memory_.zero(range);
    touched.insert(touched.end(), zeros.begin(), zeros.end());
    std::sort(touched.begin(), touched.end(), [](const Range& a, const Range& b) { return a.offset < b.offset; });
    const auto base = newest_ ? newest_ : open(*BlockMap::zeros(kBlocks * kBlockSize));
    auto taken = take(memory_, touched, *base);
    EXPECT_TRUE(taken) << taken.error().message;
    newest_ = open(taken->map);
    return newest_;
  }
  // What a process that follows the plan has in its memory. Every byte comes from one place.
  Bytes follow(const MappedPlan& plan) const {
    Bytes bytes(plan.memory->size());
    std::vector<Range> places = plan.served;
    for (const MappedRun& run : plan.runs) {
      places.push_back({run.offset, run.length});
      const auto there = std::span(bytes).subspan(run.offset, run.length);
      EXPECT_EQ(*fs_.read_at(plan.layers.at(run.layer)->fd(), run.layer_offset, there), run.length);
    }
    for (const Range& range : plan.served) {
      EXPECT_TRUE(plan.memory->read(range.offset, std::span(bytes).subspan(range.offset, range.length)));
    }
    const auto before = [](const auto& a, const auto& b) { return a.offset < b.offset; };
    EXPECT_TRUE(std::ranges::is_sorted(plan.runs, before));
    EXPECT_TRUE(std::ranges::is_sorted(plan.served, before));
    std::ranges::sort(places, before);
    EXPECT_TRUE(snapshot::check_ranges(places, plan.memory->size(), "planned"));
    return bytes;
  }
  // What holds of every plan within these limits.
  void expect_right(const MappedPlan& plan, const MappingLimits& limits) {
    EXPECT_EQ(follow(plan), memory_.content);
    uint64_t held = 0;
    for (const auto& extent : plan.memory->map().extents()) held += extent.is_zero() ? 0 : extent.length;
    EXPECT_EQ(plan.mapped_bytes + plan.copied_bytes + plan.served_bytes, held);
    const auto mapped = std::ranges::count(plan.runs, false, &MappedRun::copied);
    const auto served = static_cast<int64_t>(plan.served.size());
    EXPECT_LE(2 * (mapped + served), static_cast<int64_t>(std::max(limits.mappings, 2 * limits.regions)));
    EXPECT_LE(plan.served.size(), limits.regions);
    EXPECT_LE(plan.layers.size(), limits.layers);
    EXPECT_LE(plan.copied_bytes, limits.copied_bytes);
    EXPECT_EQ(plan.is_served(), plan.not_mapped.has_value());
    std::vector<bool> used(plan.layers.size());
    for (const MappedRun& run : plan.runs) used.at(run.layer) = true;
    EXPECT_EQ(std::ranges::count(used, false), 0) << "a layer of which nothing is mapped";
  }
  // A layer that nobody can map; memory_ has the content.
  LayerId packed(const Bytes& content) {
    const LayerId id = LayerId::random();
    auto writer = snapshot::PackedLayerWriter::create(fs_, store_.layers_dir(), id, kBlocks * kBlockSize);
    EXPECT_TRUE(writer);
    EXPECT_TRUE((*writer)->write(0, content));
    EXPECT_TRUE((*writer)->finish());
    return id;
  }
  static MappingLimits limits(uint64_t mappings) {
    MappingLimits limits;
    limits.mappings = mappings;
    return limits;
  }
  static void expect_served(const MappedPlan& plan, const std::vector<Range>& ranges, const std::string& why) {
    EXPECT_EQ(plan.served, ranges);
    ASSERT_TRUE(plan.not_mapped);
    EXPECT_EQ(plan.not_mapped->code, Code::kFailedPrecondition);
    EXPECT_THAT(plan.not_mapped->message, HasSubstr(why));
  }

  snapshot::testing::Random random_{7};
  snapshot::testing::Memory memory_{kBlocks * kBlockSize};
  std::shared_ptr<AddressSpace> newest_;
};

TEST_F(MappedPlanTest, WhoeverFollowsItHasTheMemory) {
  generation({blocks(0, 100), blocks(200, 50)});
  generation({blocks(20, 1), blocks(30, 40), blocks(300, 2)}, {blocks(210, 5)});
  const auto memory = generation({blocks(25, 20), blocks(4095, 1)}, {blocks(0, 3)});
  const auto plan = plan_mapping(memory, anything_is_whole, limits(1000));
  EXPECT_EQ(follow(plan), memory_.content);
  EXPECT_EQ(plan.layers.size(), 3u);
  EXPECT_EQ(plan.mapped_bytes + plan.copied_bytes, (100 - 3 + 45 + 2 + 1) * kBlockSize);
}

TEST_F(MappedPlanTest, ShortRunsAreCopiedAsLongAsTheyAreFew) {
  std::vector<Range> runs{blocks(3000, 100)};
  for (uint64_t at = 0; at < 400; at += 4) runs.insert(runs.end() - 1, blocks(at, 2));
  const auto plan = plan_mapping(generation(runs), anything_is_whole, limits(1000));
  EXPECT_EQ(plan.copied_bytes, 128u << 10) << "16 of the 100";
  EXPECT_FALSE(plan.runs.back().copied);
  EXPECT_EQ(follow(plan), memory_.content);
}

TEST_F(MappedPlanTest, TheLongestRunsGetTheMappingsThatThereAre) {
  std::vector<Range> runs;
  for (uint64_t i = 0; i < 100; ++i) runs.push_back(blocks(i * 40, 3 + i % 30));
  const auto memory = generation(runs);
  const auto plan = plan_mapping(memory, anything_is_whole, limits(40));
  uint64_t mapped = 0;
  uint64_t shortest_mapped = UINT64_MAX;
  uint64_t longest_copied = 0;
  for (const MappedRun& run : plan.runs) {
    mapped += run.copied ? 0 : 1;
    if (run.copied) longest_copied = std::max(longest_copied, run.length);
    if (!run.copied) shortest_mapped = std::min(shortest_mapped, run.length);
  }
  EXPECT_EQ(mapped, 20u) << "each with the zeros behind it";
  EXPECT_LE(longest_copied, shortest_mapped);
  EXPECT_EQ(follow(plan), memory_.content);
}

// Not beyond the limit of copies: the longest of the short ones are served.
TEST_F(MappedPlanTest, WhatCanNeitherBeMappedNorCopiedIsServed) {
  std::vector<Range> runs;
  for (uint64_t i = 0; i < 100; ++i) runs.push_back(blocks(i * 40, 20));
  MappingLimits few = limits(40);
  few.copied_bytes = 80 * 20 * kBlockSize;
  EXPECT_FALSE(plan_mapping(generation(runs), anything_is_whole, few).is_served());
  few.copied_bytes -= 1;
  few.regions = 4;
  const auto plan = plan_mapping(newest_, anything_is_whole, few);
  expect_right(plan, few);
  EXPECT_EQ(plan.served.size(), 4u);
  EXPECT_THAT(plan.not_mapped->message, HasSubstr("100 pieces"));
}

TEST_F(MappedPlanTest, ALayerThatIsNotKnownToBeWholeIsNeverMapped) {
  generation({blocks(0, 100)});
  const auto memory = generation({blocks(50, 10)});
  const snapshot::VerifiedLayers verified(store_);
  const auto is_whole = [&](LayerId id) { return verified.holds(id); };
  const LayerId first = memory->map().layers()[0];
  const LayerId second = memory->map().layers()[1];
  expect_served(plan_mapping(memory, is_whole, limits(1000)), {blocks(0, 100)}, "and 1 more cannot be mapped");
  verified.note_written(first);
  const auto plan = plan_mapping(memory, is_whole, limits(1000));
  expect_served(plan, {blocks(50, 10)}, second.text());
  expect_right(plan, limits(1000));
  verified.note_written(second);
  EXPECT_FALSE(plan_mapping(memory, is_whole, limits(1000)).is_served());
  snapshot::testing::damage_file(snapshot::layer_data_path(store_.layers_dir(), first), 5000);
  expect_served(plan_mapping(memory, is_whole, limits(1000)), {blocks(0, 50), blocks(60, 40)}, first.text());
}

TEST_F(MappedPlanTest, APackedLayerIsNeverMapped) {
  generation({blocks(0, 100)});
  const Bytes content = snapshot::testing::random_bytes(random_, 2 * kBlockSize);
  memory_.write(0, content);
  const std::array changes{snapshot::Change{blocks(0, 2), false}};
  const auto memory = open(*newest_->map().merge(packed(content), changes));
  const auto plan = plan_mapping(memory, anything_is_whole, limits(1000));
  expect_served(plan, {blocks(0, 2)}, "compressed");
  expect_right(plan, limits(1000));
  EXPECT_EQ(plan.mapped_bytes, 98 * kBlockSize);
  EXPECT_EQ(as_one_file(plan, fs_, store_.layers_dir()).error().message, plan.not_mapped->message);
}

TEST_F(MappedPlanTest, OfMoreLayersThanCanBeHandedOverTheSmallAreServed) {
  for (const uint64_t count : {7, 3, 9, 5}) generation({blocks(count * 10, count)});
  MappingLimits three = limits(1000);
  three.layers = 3;
  const auto plan = plan_mapping(newest_, anything_is_whole, three);
  expect_served(plan, {blocks(30, 3)}, "4 layers");
  expect_right(plan, three);
}

TEST_F(MappedPlanTest, FewRegionsAreServedAndTheShortestGapsWithThem) {
  generation({blocks(0, 1000)});
  const LayerId first = newest_->map().layers()[0];
  generation({blocks(100, 10), blocks(115, 10), blocks(300, 1), blocks(304, 1), blocks(900, 5)}, {blocks(320, 100)});
  const auto is_whole = [&](LayerId id) { return id == first; };
  MappingLimits three = limits(1000);
  three.regions = 3;
  const auto plan = plan_mapping(newest_, is_whole, three);
  expect_served(plan, {blocks(100, 25), blocks(300, 5), blocks(900, 5)}, "neither written nor verified");
  expect_right(plan, three);
  EXPECT_EQ(plan.served_bytes, 35 * kBlockSize);
}

// Whatever the layers are like and however little is allowed.
TEST_F(MappedPlanTest, EveryBlockComesFromOnePlaceWithinTheLimits) {
  std::mt19937_64 dice(11);
  const auto roll = [&](uint64_t sides) { return std::uniform_int_distribution<uint64_t>(0, sides - 1)(dice); };
  for (int round = 0; round < 6; ++round) {
    std::vector<Range> data;
    std::vector<Range> zeros;
    for (uint64_t at = roll(40); at < kBlocks - 80; at += 1 + roll(80)) {
      const uint64_t length = 1 + roll(roll(3) == 0 ? 60 : 3);
      (roll(5) == 0 ? zeros : data).push_back(blocks(at, length));
      at += length;
    }
    generation(data, zeros);
    for (int i = 0; i < 12; ++i) {
      SCOPED_TRACE("round " + std::to_string(round) + ", plan " + std::to_string(i));
      const auto ids = newest_->map().layers();
      std::vector<bool> whole;
      for (size_t layer = 0; layer < ids.size(); ++layer) whole.push_back(roll(4) > 0);
      const auto is_whole = [&](LayerId id) { return whole[std::ranges::find(ids, id) - ids.begin()]; };
      const MappingLimits limits{roll(600), 1 + roll(8), roll(200) * kBlockSize, 1 + roll(40)};
      expect_right(plan_mapping(newest_, is_whole, limits), limits);
    }
  }
}

TEST_F(MappedPlanTest, AHostOfManyMappingsIsToldOfNoMorePiecesThanQemuTakes) {
  constexpr uint64_t kRuns = 300'000;
  const uint64_t size = 2 * kRuns * kBlockSize;
  const LayerId id = LayerId::random();
  auto writer = snapshot::LayerWriter::create(fs_, store_.layers_dir(), id, size).value();
  ASSERT_TRUE(writer->finish());  // a plan reads none of it
  std::vector<snapshot::Change> changes;
  for (uint64_t run = 0; run < kRuns; ++run) changes.push_back({blocks(2 * run, 1), false});
  const auto memory = open(*BlockMap::zeros(size)->merge(id, changes));
  ASSERT_TRUE(memory);
  for (const uint64_t most : {uint64_t{65'530}, uint64_t{1'048'576}, uint64_t{INT32_MAX}}) {
    const auto plan = plan_mapping(memory, anything_is_whole, mapping_limits(most));
    EXPECT_LE(plan.runs.size() + plan.served.size(), kMostPieces) << most;
    EXPECT_GT(plan.mapped_bytes, 0U);
  }
}

TEST_F(MappedPlanTest, MemoryOfNothingButZerosNeedsNoLayer) {
  const auto plan = plan_mapping(open(*BlockMap::zeros(kBlocks * kBlockSize)), anything_is_whole, limits(1000));
  EXPECT_TRUE(plan.runs.empty());
  EXPECT_FALSE(as_one_file(plan, fs_, store_.layers_dir()));
}

TEST_F(MappedPlanTest, AWholeMemoryInOneLayerIsAFile) {
  generation({blocks(0, 100), blocks(120, 3), blocks(4095, 1)});
  const auto plan = plan_mapping(newest_, anything_is_whole, limits(1000));
  const auto file = as_one_file(plan, fs_, store_.layers_dir());
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ(snapshot::testing::read_whole_file(*file), memory_.content);
}

TEST_F(MappedPlanTest, ALayerThatHoldsWhatIsZerosNowIsNoFileOfTheMemory) {
  generation({blocks(0, 100)});
  generation({}, {blocks(40, 2)});
  const auto plan = plan_mapping(newest_, anything_is_whole, limits(1000));
  ASSERT_EQ(plan.layers.size(), 1u);
  const auto file = as_one_file(plan, fs_, store_.layers_dir());
  ASSERT_FALSE(file);
  EXPECT_THAT(file.error().message, HasSubstr("holds more"));
  EXPECT_EQ(follow(plan), memory_.content);
}

TEST_F(MappedPlanTest, TwoLayersAreNoFile) {
  generation({blocks(0, 100)});
  generation({blocks(40, 2)});
  const auto plan = plan_mapping(newest_, anything_is_whole, limits(1000));
  const auto file = as_one_file(plan, fs_, store_.layers_dir());
  ASSERT_FALSE(file);
  EXPECT_THAT(file.error().message, HasSubstr("2 layers"));
}

TEST(MappingLimitsTest, LeavesAMargin) {
  const auto limits = mapping_limits();
  ASSERT_TRUE(limits);
  EXPECT_GT(limits->mappings, 0u);
}

}  // namespace
}  // namespace stasis::pager
