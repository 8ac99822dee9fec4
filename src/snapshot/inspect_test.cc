#include "snapshot/inspect.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "snapshot/compact.h"
#include "snapshot/testing/published.h"

namespace stasis::snapshot {
namespace {

using testing::block_of;
using testing::blocks;
using ::testing::Each;
using ::testing::SizeIs;

class InspectTest : public testing::PublishTest {
 protected:
  SnapshotDetail inspect(const Manifest& manifest, size_t cells = 16) {
    auto detail = snapshot::inspect(store_, manifest.id, {}, cells);
    EXPECT_TRUE(detail) << detail.error().message;
    return std::move(*detail);
  }
};

TEST_F(InspectTest, AFirstSnapshotIsOneRun) {
  const Manifest first = publish_first();
  const SnapshotDetail detail = inspect(first);
  EXPECT_EQ(detail.manifest, first);
  ASSERT_THAT(detail.spaces, SizeIs(1));
  const SpaceDetail& memory = detail.spaces[0];
  EXPECT_EQ(memory.name, "memory");
  EXPECT_EQ(memory.extents, 1U);
  EXPECT_EQ(memory.data_bytes, 1U << 20);
  EXPECT_EQ(memory.zero_bytes, 0U);
  EXPECT_EQ(memory.fragmentation, 0);
  EXPECT_EQ(memory.shared_bytes, 0U);
  ASSERT_THAT(memory.layers, SizeIs(1));
  EXPECT_EQ(memory.layers[0].mapped_bytes, 1U << 20);
  EXPECT_EQ(memory.layers[0].stored_bytes, memory.own_bytes);
  EXPECT_FALSE(memory.layers[0].shared);
  EXPECT_EQ(detail.own_bytes, memory.own_bytes + detail.part_bytes);
  EXPECT_THAT(memory.cells, ::testing::AllOf(SizeIs(16), Each(1U)));
}

TEST_F(InspectTest, APackedLayerIsToldAsSuch) {
  const Manifest first = publish_first();
  EXPECT_EQ(inspect(first).spaces.at(0).layers.at(0).form, LayerForm::kRaw);
  ASSERT_EQ(compact(store_, first.id, {.form = LayerForm::kPacked})->spaces, 1U);
  const LayerUse packed = inspect(store_.load(first.id).value()).spaces.at(0).layers.at(0);
  EXPECT_EQ(packed.form, LayerForm::kPacked);
  EXPECT_GT(packed.stored_bytes, 0U);
}

TEST_F(InspectTest, LayersAreInOrderOfGenerationAndTheirPlacesAreSeen) {
  const Manifest first = publish_first();
  memory_.write(128 * kBlockSize, testing::Bytes(64 * kBlockSize, std::byte{1}));
  const Manifest second = publish_next(first);
  memory_.zero(blocks(192, 64));
  memory_.write(0, block_of(3));
  const Manifest third = publish_next(second);
  const SnapshotDetail detail = inspect(third);
  const SpaceDetail& memory = detail.spaces.at(0);
  EXPECT_EQ(memory.metadata.generation, 2U);
  ASSERT_THAT(memory.layers, SizeIs(3));
  EXPECT_EQ(memory.layers[0].generation, 0U);
  EXPECT_EQ(memory.layers[0].id, only_layer(first));
  EXPECT_EQ(memory.layers[1].generation, 1U);
  EXPECT_EQ(memory.layers[2].generation, 2U);
  EXPECT_EQ(memory.layers[2].mapped_bytes, kBlockSize);
  EXPECT_TRUE(memory.layers[0].shared);
  EXPECT_TRUE(memory.layers[1].shared);
  EXPECT_FALSE(memory.layers[2].shared);
  EXPECT_EQ(memory.zero_bytes, 64 * kBlockSize);
  EXPECT_EQ(memory.extents, 4U) << "one block, the first layer, the second, zeros";
  EXPECT_DOUBLE_EQ(memory.fragmentation, 2.0 / 191);
  EXPECT_THAT(inspect(third, 4).spaces.at(0).cells, ::testing::ElementsAre(1, 1, 2, 0));
  EXPECT_THAT(inspect(third, 1000).spaces.at(0).cells, SizeIs(256)) << "no more cells than blocks";
  EXPECT_EQ(inspect(third, 1000).spaces.at(0).cells.at(0), 3U);
}

TEST_F(InspectTest, TheLineOfParentsEndsWhereOneIsMissing) {
  const Manifest first = publish_first();
  const Manifest second = publish_next(first);
  const Manifest third = publish_next(second);
  auto line = lineage(store_, third.id);
  ASSERT_TRUE(line);
  ASSERT_THAT(*line, SizeIs(3));
  EXPECT_EQ((*line)[0].manifest, third);
  EXPECT_EQ((*line)[2].id, first.id);
  ASSERT_TRUE(store_.remove(second.id));
  line = lineage(store_, third.id);
  ASSERT_THAT(*line, SizeIs(2));
  EXPECT_EQ((*line)[1].id, second.id);
  EXPECT_FALSE((*line)[1].manifest);
  EXPECT_EQ(lineage(store_, second.id).error().code, Code::kNotFound);
  EXPECT_EQ(snapshot::inspect(store_, second.id, {}, 4).error().code, Code::kNotFound);
}

TEST_F(InspectTest, ACircleOfParentsHasAnEnd) {
  Manifest one = publish_first();
  std::filesystem::remove(store_.snapshot_dir(one.id) / "manifest");
  one.parent = one.id;
  ASSERT_TRUE(store_.publish(one));
  EXPECT_THAT(lineage(store_, one.id).value(), SizeIs(1));
}

}  // namespace
}  // namespace stasis::snapshot
