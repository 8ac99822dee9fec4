#include "pager/mapped_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "snapshot/capture.h"
#include "snapshot/packed_layer.h"
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
  // What a process that follows the plan has in its memory.
  Bytes follow(const MappedPlan& plan) const {
    Bytes bytes(plan.memory->size());
    uint64_t end = 0;
    for (const MappedRun& run : plan.runs) {
      EXPECT_GE(run.offset, end) << "sorted and disjoint";
      end = run.end();
      const auto there = std::span(bytes).subspan(run.offset, run.length);
      EXPECT_EQ(*fs_.read_at(plan.layers.at(run.layer)->fd(), run.layer_offset, there), run.length);
    }
    return bytes;
  }
  static MappingLimits limits(uint64_t mappings) {
    MappingLimits limits;
    limits.mappings = mappings;
    return limits;
  }
  void expect_refused(const Result<MappedPlan>& plan, const std::string& why) {
    ASSERT_FALSE(plan);
    EXPECT_EQ(plan.error().code, Code::kFailedPrecondition);
    EXPECT_THAT(plan.error().message, HasSubstr(why));
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
  ASSERT_TRUE(plan) << plan.error().message;
  EXPECT_EQ(follow(*plan), memory_.content);
  EXPECT_EQ(plan->layers.size(), 3u);
  EXPECT_EQ(plan->mapped_bytes + plan->copied_bytes, (100 - 3 + 45 + 2 + 1) * kBlockSize);
}

TEST_F(MappedPlanTest, ShortRunsAreCopiedAsLongAsTheyAreFew) {
  std::vector<Range> runs{blocks(3000, 100)};
  for (uint64_t at = 0; at < 400; at += 4) runs.insert(runs.end() - 1, blocks(at, 2));
  const auto plan = plan_mapping(generation(runs), anything_is_whole, limits(1000));
  ASSERT_TRUE(plan);
  EXPECT_EQ(plan->copied_bytes, 128u << 10) << "16 of the 100";
  EXPECT_FALSE(plan->runs.back().copied);
  EXPECT_EQ(follow(*plan), memory_.content);
}

TEST_F(MappedPlanTest, TheLongestRunsGetTheMappingsThatThereAre) {
  std::vector<Range> runs;
  for (uint64_t i = 0; i < 100; ++i) runs.push_back(blocks(i * 40, 3 + i % 30));
  const auto memory = generation(runs);
  const auto plan = plan_mapping(memory, anything_is_whole, limits(40));
  ASSERT_TRUE(plan);
  uint64_t mapped = 0;
  uint64_t shortest_mapped = UINT64_MAX;
  uint64_t longest_copied = 0;
  for (const MappedRun& run : plan->runs) {
    mapped += run.copied ? 0 : 1;
    if (run.copied) longest_copied = std::max(longest_copied, run.length);
    if (!run.copied) shortest_mapped = std::min(shortest_mapped, run.length);
  }
  EXPECT_EQ(mapped, 20u) << "each with the zeros behind it";
  EXPECT_LE(longest_copied, shortest_mapped);
  EXPECT_EQ(follow(*plan), memory_.content);
}

TEST_F(MappedPlanTest, TooManyPiecesToCopyAreRefused) {
  std::vector<Range> runs;
  for (uint64_t i = 0; i < 100; ++i) runs.push_back(blocks(i * 40, 20));
  MappingLimits few = limits(40);
  few.copied_bytes = 80 * 20 * kBlockSize - 1;
  expect_refused(plan_mapping(generation(runs), anything_is_whole, few), "100 pieces");
  few.copied_bytes += 1;
  EXPECT_TRUE(plan_mapping(newest_, anything_is_whole, few));
}

TEST_F(MappedPlanTest, ALayerThatIsNotKnownToBeWholeIsNeverMapped) {
  generation({blocks(0, 100)});
  const auto memory = generation({blocks(50, 10)});
  const snapshot::VerifiedLayers verified(store_);
  const auto is_whole = [&](LayerId id) { return verified.holds(id); };
  const LayerId first = memory->map().layers()[0];
  const LayerId second = memory->map().layers()[1];
  expect_refused(plan_mapping(memory, is_whole, limits(1000)), "neither written nor verified");
  verified.note_written(first);
  expect_refused(plan_mapping(memory, is_whole, limits(1000)), second.text());
  verified.note_written(second);
  EXPECT_TRUE(plan_mapping(memory, is_whole, limits(1000)));
  snapshot::testing::damage_file(snapshot::layer_data_path(store_.layers_dir(), first), 5000);
  expect_refused(plan_mapping(memory, is_whole, limits(1000)), first.text());
}

TEST_F(MappedPlanTest, APackedLayerIsNeverMapped) {
  const LayerId id = LayerId::random();
  auto writer = snapshot::PackedLayerWriter::create(fs_, store_.layers_dir(), id, kBlocks * kBlockSize);
  ASSERT_TRUE(writer);
  ASSERT_TRUE((*writer)->write(0, snapshot::testing::random_bytes(random_, kBlockSize)));
  ASSERT_TRUE((*writer)->finish());
  const std::array changes{snapshot::Change{blocks(0, 1), false}};
  const auto memory = open(*BlockMap::zeros(kBlocks * kBlockSize)->merge(id, changes));
  expect_refused(plan_mapping(memory, anything_is_whole, limits(1000)), "compressed");
}

TEST_F(MappedPlanTest, MoreLayersThanCanBeHandedOverAreRefused) {
  for (uint64_t i = 0; i < 4; ++i) generation({blocks(i * 10, 5)});
  MappingLimits three = limits(1000);
  three.layers = 3;
  expect_refused(plan_mapping(newest_, anything_is_whole, three), "4 layers");
}

TEST_F(MappedPlanTest, MemoryOfNothingButZerosNeedsNoLayer) {
  const auto plan = plan_mapping(open(*BlockMap::zeros(kBlocks * kBlockSize)), anything_is_whole, limits(1000));
  ASSERT_TRUE(plan);
  EXPECT_TRUE(plan->runs.empty());
  EXPECT_FALSE(as_one_file(*plan, fs_, store_.layers_dir()));
}

TEST_F(MappedPlanTest, AWholeMemoryInOneLayerIsAFile) {
  generation({blocks(0, 100), blocks(120, 3), blocks(4095, 1)});
  const auto plan = plan_mapping(newest_, anything_is_whole, limits(1000));
  ASSERT_TRUE(plan);
  const auto file = as_one_file(*plan, fs_, store_.layers_dir());
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ(snapshot::testing::read_whole_file(*file), memory_.content);
}

TEST_F(MappedPlanTest, ALayerThatHoldsWhatIsZerosNowIsNoFileOfTheMemory) {
  generation({blocks(0, 100)});
  generation({}, {blocks(40, 2)});
  const auto plan = plan_mapping(newest_, anything_is_whole, limits(1000));
  ASSERT_TRUE(plan);
  ASSERT_EQ(plan->layers.size(), 1u);
  const auto file = as_one_file(*plan, fs_, store_.layers_dir());
  ASSERT_FALSE(file);
  EXPECT_THAT(file.error().message, HasSubstr("holds more"));
  EXPECT_EQ(follow(*plan), memory_.content);
}

TEST_F(MappedPlanTest, TwoLayersAreNoFile) {
  generation({blocks(0, 100)});
  generation({blocks(40, 2)});
  const auto plan = plan_mapping(newest_, anything_is_whole, limits(1000));
  ASSERT_TRUE(plan);
  const auto file = as_one_file(*plan, fs_, store_.layers_dir());
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
