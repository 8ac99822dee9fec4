#include "supervisor/live_copy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "base/file.h"
#include "base/memory.h"
#include "base/testing/temp_dir.h"
#include "base/testing/volatile_file_system.h"
#include "snapshot/ranges.h"

namespace stasis::supervisor {
namespace {

using snapshot::AddressSpace;
using snapshot::BlockMap;
using snapshot::kBlockSize;

constexpr uint64_t kBlocks = 512;
constexpr uint64_t kSize = kBlocks * kBlockSize;

constexpr Range blocks(uint64_t first, uint64_t count) { return {first * kBlockSize, count * kBlockSize}; }

// A memory file that a guest would write to, and what is copied of it.
class LiveCopyTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(fs_.make_directory(layers()));
    ASSERT_TRUE(fs_.make_directory(dir_.path() / "work"));
    auto memory = create_memory_file("guest", kSize);
    ASSERT_TRUE(memory);
    memory_ = std::move(*memory);
    source_ = MemorySource::of_file(duplicate(memory_.get()).value());
    model_.resize(kSize);
    parent_ = AddressSpace::open(fs_, layers(), BlockMap::zeros(kSize).value()).value();
  }
  Path layers() const { return dir_.path() / "layers"; }

  LiveCopy begin() { return LiveCopy::create(fs_, parent_, dir_.path() / "work").value(); }
  void write(Range range, int value) {
    std::memset(model_.data() + range.offset, value, range.length);
    ASSERT_TRUE(fs_.write_at(memory_.get(), range.offset, std::span(model_).subspan(range.offset, range.length)));
  }
  // The content of a map must be what the guest has now.
  void expect_content(const BlockMap& map) {
    const auto space = AddressSpace::open(fs_, layers(), map).value();
    std::vector<std::byte> content(kSize);
    ASSERT_TRUE(space->read(0, content));
    EXPECT_TRUE(content == model_);
  }
  // The next copy is over this one.
  void stand_on(const BlockMap& map) { parent_ = AddressSpace::open(fs_, layers(), map).value(); }

  FileSystem& fs_ = real_file_system();
  stasis::testing::TempDir dir_;
  UniqueFd memory_;
  MemorySource source_;
  std::vector<std::byte> model_;
  std::shared_ptr<AddressSpace> parent_;
};

TEST_F(LiveCopyTest, TheLastRoundOfABlockCounts) {
  LiveCopy copy = begin();
  write(blocks(3, 4), 1);
  ASSERT_TRUE(copy.copy(source_, std::vector{blocks(3, 4)}));
  write(blocks(5, 9), 2);
  ASSERT_TRUE(copy.copy(source_, std::vector{blocks(5, 9)}));
  const auto sealed = copy.seal(layers(), std::vector{blocks(3, 11)}, {});
  ASSERT_TRUE(sealed) << sealed.error().message;
  EXPECT_EQ(sealed->blocks_compared, 11u);
  EXPECT_EQ(sealed->blocks_stored, 11u);
  EXPECT_EQ(sealed->map.metadata().generation, 0u) << "the first over nothing";
  expect_content(sealed->map);
}

TEST_F(LiveCopyTest, TheLastRoundIsThatOfItsMomentAndWrittenAtTheSeal) {
  LiveCopy copy = begin();
  write(blocks(3, 4), 1);
  ASSERT_TRUE(copy.copy(source_, std::vector{blocks(3, 4)}));
  write(blocks(5, 3), 2);
  write(blocks(20, 2), 3);
  ASSERT_TRUE(copy.copy_last(source_, std::vector{blocks(5, 3), blocks(20, 2)}));
  const auto now = model_;
  write(blocks(0, 30), 4);  // the guest goes on
  model_ = now;
  const auto sealed = copy.seal(layers(), std::vector{blocks(3, 5), blocks(20, 2)}, {});
  ASSERT_TRUE(sealed) << sealed.error().message;
  EXPECT_EQ(sealed->blocks_stored, 7u);
  expect_content(sealed->map);
}

TEST_F(LiveCopyTest, WhatIsEqualToTheParentOrZeroIsNotStored) {
  write(blocks(0, 20), 1);
  {
    LiveCopy first = begin();
    ASSERT_TRUE(first.copy(source_, std::vector{blocks(0, 20)}));
    stand_on(first.seal(layers(), std::vector{blocks(0, 20)}, {})->map);
  }

  LiveCopy second = begin();
  write(blocks(4, 2), 2);
  write(blocks(10, 2), 0);
  ASSERT_TRUE(second.copy(source_, std::vector{blocks(0, 20)}));
  const auto sealed = second.seal(layers(), std::vector{blocks(0, 20)}, {});
  ASSERT_TRUE(sealed) << sealed.error().message;
  EXPECT_EQ(sealed->blocks_stored, 2u);
  EXPECT_EQ(sealed->blocks_zeroed, 2u);
  expect_content(sealed->map);
}

TEST_F(LiveCopyTest, WhatWasCopiedAndThenGivenBackIsZeros) {
  LiveCopy copy = begin();
  write(blocks(0, 8), 1);
  ASSERT_TRUE(copy.copy(source_, std::vector{blocks(0, 8)}));
  write(blocks(2, 3), 0);
  const auto sealed = copy.seal(layers(), std::vector{blocks(0, 2), blocks(5, 3)}, std::vector{blocks(2, 5)});
  ASSERT_TRUE(sealed) << sealed.error().message;
  expect_content(sealed->map);
}

TEST_F(LiveCopyTest, WhatNobodyCopiedIsAnErrorAndLeavesNothing) {
  {
    LiveCopy copy = begin();
    write(blocks(0, 8), 1);
    ASSERT_TRUE(copy.copy(source_, std::vector{blocks(0, 4)}));
    EXPECT_FALSE(copy.seal(layers(), std::vector{blocks(0, 5)}, {}));
    EXPECT_FALSE(copy.copy(source_, std::vector{blocks(kBlocks, 1)})) << "behind the end";
  }
  EXPECT_TRUE(fs_.list(layers())->empty());
  EXPECT_TRUE(fs_.list(dir_.path() / "work")->empty());
}

// Random writes between the rounds, over several generations: each is what the guest had when it stopped.
TEST_F(LiveCopyTest, EveryGenerationIsWhatTheGuestHadWhenItStopped) {
  for (const uint64_t seed : {1u, 2u, 3u, 4u}) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 random(seed);
    for (int generation = 0; generation < 4; ++generation) {
      LiveCopy copy = begin();
      std::vector<Range> all;
      for (int round = 0; round < 4; ++round) {
        std::vector<Range> fresh;
        for (int i = 0; i < 10; ++i) {
          const uint64_t first = random() % kBlocks;
          const Range range = blocks(first, 1 + random() % std::min<uint64_t>(20, kBlocks - first));
          write(range, static_cast<int>(random() % 3));
          fresh = snapshot::unite(fresh, std::vector{range});
        }
        ASSERT_TRUE(copy.copy(source_, fresh));
        all = snapshot::unite(all, fresh);
      }
      const auto sealed = copy.seal(layers(), all, {});
      ASSERT_TRUE(sealed) << sealed.error().message;
      expect_content(sealed->map);
      stand_on(sealed->map);
    }
  }
}

// Only of so much; what a snapshot copies besides is synced by its seal.
TEST(LargeLiveCopyTest, ALargeRoundIsWrittenBackBeforeTheGuestStops) {
  constexpr uint64_t kLarge = uint64_t{256} << 20;
  const stasis::testing::TempDir dir;
  stasis::testing::VolatileFileSystem device(dir.path());
  const auto parent = AddressSpace::open(device, dir.path(), BlockMap::zeros(kLarge).value()).value();
  const UniqueFd memory = create_memory_file("guest", kLarge).value();
  const auto source = MemorySource::of_file(duplicate(memory.get()).value());
  LiveCopy copy = LiveCopy::create(device, parent, dir.path()).value();
  device.fail_next_sync();
  EXPECT_TRUE(copy.copy(source, std::vector{Range{0, kLarge - kBlockSize}}));
  EXPECT_FALSE(copy.copy(source, std::vector{Range{0, kLarge}}));
}

}  // namespace
}  // namespace stasis::supervisor
