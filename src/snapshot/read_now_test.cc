// What can be read without waiting for storage, and where a block comes from.
#include <gtest/gtest.h>

#include <future>

#include "base/testing/slow_file_system.h"
#include "snapshot/packed_layer.h"
#include "snapshot/testing/fixtures.h"

namespace stasis::snapshot {
namespace {

using testing::Bytes;

constexpr uint64_t kFrames = 4;
constexpr uint64_t kSize = kFrames * kFrameSize;

template <typename Writer>
class ReadNowTest : public testing::StoreTest {
 protected:
  // Frames 0, 1 and 3 hold data; the address space has them, and zeros in place of frame 2.
  void SetUp() override {
    testing::Random random(3);
    auto writer = Writer::create(fs_, store_.layers_dir(), id_, kSize).value();
    for (const uint64_t number : {0, 1, 3}) {
      const Bytes bytes = testing::random_bytes(random, kFrameSize);
      std::copy(bytes.begin(), bytes.end(), content_.begin() + static_cast<ptrdiff_t>(number * kFrameSize));
      ASSERT_TRUE(writer->write(number * kFrameSize, bytes));
    }
    ASSERT_TRUE(writer->finish());
    const std::array changes{Change{{0, 2 * kFrameSize}, false}, Change{{3 * kFrameSize, kFrameSize}, false}};
    const BlockMap map = BlockMap::zeros(kSize)->merge(id_, changes).value();
    space_ = AddressSpace::open(slow_, store_.layers_dir(), map).value();
    slow_.hold();
  }
  uint64_t read_now(Range range) {
    Bytes bytes(range.length);
    const uint64_t n = space_->read_now(range.offset, bytes);
    EXPECT_TRUE(std::equal(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(n),
                           content_.begin() + static_cast<ptrdiff_t>(range.offset)));
    return n;
  }

  const LayerId id_ = LayerId::random();
  Bytes content_ = Bytes(kSize);
  stasis::testing::SlowFileSystem slow_;
  std::shared_ptr<AddressSpace> space_;
};

using Writers = ::testing::Types<LayerWriter, PackedLayerWriter>;
TYPED_TEST_SUITE(ReadNowTest, Writers);

TYPED_TEST(ReadNowTest, NothingIsWaitedFor) {
  EXPECT_EQ(this->read_now({0, kFrameSize}), 0U);
  EXPECT_EQ(this->read_now({2 * kFrameSize, 2 * kFrameSize}), kFrameSize) << "zeros are there";
  EXPECT_TRUE(this->slow_.begun().empty());
}

TYPED_TEST(ReadNowTest, AFrameThatWasLoadedIsThere) {
  auto loads = std::async(std::launch::async, [&] { return this->space_->load({0, 1}); });
  ASSERT_TRUE(this->slow_.await_begun(1));
  EXPECT_FALSE(this->space_->frame_at(kFrameSize)->verified);
  this->slow_.release(this->slow_.begun().front());
  ASSERT_TRUE(loads.get());
  EXPECT_TRUE(this->space_->frame_at(kFrameSize)->verified);
  EXPECT_EQ(this->read_now({kFrameSize + 5 * kBlockSize, 2 * kFrameSize}), 2 * kFrameSize - 5 * kBlockSize);
  EXPECT_EQ(this->read_now({0, kFrameSize}), 0U);
}

TYPED_TEST(ReadNowTest, WhatIsInMemoryIsVerifiedAndThere) {
  this->slow_.release();
  EXPECT_EQ(this->read_now({3 * kBlockSize, kFrameSize}), kFrameSize);
  EXPECT_TRUE(this->space_->frame_at(0)->verified);
  EXPECT_TRUE(this->space_->frame_at(kFrameSize)->verified);
  EXPECT_FALSE(this->space_->frame_at(3 * kFrameSize)->verified);
}

TYPED_TEST(ReadNowTest, ADamagedFrameIsNotThereAndLoadingSaysWhy) {
  this->slow_.release();
  const Path packed = layer_packed_path(this->store_.layers_dir(), this->id_);
  const bool is_packed = exists(this->fs_, packed);
  testing::damage_file(is_packed ? packed : layer_data_path(this->store_.layers_dir(), this->id_),
                       is_packed ? kPackedHeader + 100 : 100);
  EXPECT_EQ(this->read_now({0, kFrameSize}), 0U);
  EXPECT_EQ(this->space_->load({0, 0}).error().code, Code::kDataLoss);
  EXPECT_EQ(this->read_now({kFrameSize, kFrameSize}), kFrameSize);
}

class FrameAtTest : public testing::StoreTest {};

TEST_F(FrameAtTest, ItIsAsFarAsFrameAndExtentGo) {
  const LayerId id = LayerId::random();
  auto writer = LayerWriter::create(fs_, store_.layers_dir(), id, kSize).value();
  ASSERT_TRUE(writer->write(0, Bytes(kSize, std::byte{1})));
  ASSERT_TRUE(writer->finish());
  // Blocks 0 to 3 are zeros; blocks 4 to 29 come from where blocks 10 to 35 of the layer are; the rest is zeros.
  const std::array extents{Extent{0, 4 * kBlockSize, {}, 0},
                           Extent{4 * kBlockSize, 26 * kBlockSize, id, 10 * kBlockSize},
                           Extent{30 * kBlockSize, kSize - 30 * kBlockSize, {}, 0}};
  const auto map = BlockMap::from_extents({kSize, 0, Uuid::random(), {}}, extents).value();
  const auto space = open(map);
  EXPECT_FALSE(space->frame_at(3 * kBlockSize));
  EXPECT_EQ(space->frame_at(4 * kBlockSize)->frame, (FrameRef{0, 0}));
  EXPECT_EQ(space->frame_at(7 * kBlockSize)->range, testing::blocks(4, 6));
  EXPECT_EQ(space->frame_at(10 * kBlockSize)->frame, (FrameRef{0, 1}));
  EXPECT_EQ(space->frame_at(17 * kBlockSize)->range, testing::blocks(10, 16));
  EXPECT_EQ(space->frame_at(29 * kBlockSize)->frame, (FrameRef{0, 2}));
  EXPECT_EQ(space->frame_at(29 * kBlockSize)->range, testing::blocks(26, 4));
  EXPECT_EQ(space->describe({0, 2}), "frame 2 of layer " + id.text());
}

}  // namespace
}  // namespace stasis::snapshot
