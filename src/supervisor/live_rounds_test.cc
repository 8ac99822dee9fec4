#include "supervisor/live_rounds.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/testing/temp_dir.h"

namespace stasis::supervisor {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kSize = 32 * kMiB;

// A guest that has written so much at each look.
class LiveRoundsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(fs_.make_directory(dir_.path() / "layers"));
    ASSERT_TRUE(fs_.make_directory(dir_.path() / "work"));
    memory_ = create_memory_file("guest", kSize).value();
    const auto nothing = snapshot::BlockMap::zeros(kSize).value();
    const auto parent = snapshot::AddressSpace::open(fs_, dir_.path() / "layers", nothing).value();
    copy_.emplace(LiveCopy::create(fs_, parent, dir_.path() / "work").value());
  }
  Result<LiveStats> copy(const std::vector<uint64_t>& written) {
    looks_ = 0;
    return copy_in_rounds(*copy_, [&]() -> Result<vmm::SavedMemory> {
      const uint64_t bytes = written.at(looks_++);
      if (bytes == 0) return fail(Code::kUnimplemented, "nobody looks");
      if (bytes > kSize) return fail(Code::kUnavailable, "it has ended");
      return vmm::SavedMemory{MemorySource::of_file(duplicate(memory_.get()).value()), {}, {{0, bytes}}};
    });
  }
  uint32_t rounds(const std::vector<uint64_t>& written) {
    const auto copied = copy(written);
    EXPECT_TRUE(copied);
    EXPECT_EQ(copied->rounds, looks_);
    EXPECT_EQ(copied->reason, "");
    return copied->rounds;
  }

  FileSystem& fs_ = real_file_system();
  stasis::testing::TempDir dir_;
  UniqueFd memory_;
  std::optional<LiveCopy> copy_;
  uint32_t looks_ = 0;
};

TEST_F(LiveRoundsTest, EndWithASmallOne) {
  EXPECT_EQ(rounds({kMiB}), 1u);
  EXPECT_EQ(rounds({20 * kMiB, 8 * kMiB, 2 * kMiB, 4096}), 4u);
}

TEST_F(LiveRoundsTest, EndWhenTheyDoNotGetSmaller) {
  EXPECT_EQ(rounds({8 * kMiB, 6 * kMiB + 4096}), 2u) << "more than three quarters";
  EXPECT_EQ(rounds({8 * kMiB, 6 * kMiB, 20 * kMiB}), 3u);
}

TEST_F(LiveRoundsTest, EndAfterTheEighthWhateverIsLeft) {
  EXPECT_EQ(rounds({32 * kMiB, 24 * kMiB, 18 * kMiB, 13 * kMiB, 9 * kMiB, 6 * kMiB, 4 * kMiB, 2 * kMiB}), 8u);
}

TEST_F(LiveRoundsTest, ThereAreNoneWhereOnlyAStoppedMachineCanBeAsked) {
  const auto copied = copy({0});
  ASSERT_TRUE(copied);
  EXPECT_EQ(*copied, (LiveStats{0, 0, "nobody looks"}));
}

TEST_F(LiveRoundsTest, WhatGoesWrongIsTold) {
  EXPECT_THAT(copy({8 * kMiB, kSize + 1}).error().message, HasSubstr("it has ended"));
}

}  // namespace
}  // namespace stasis::supervisor
