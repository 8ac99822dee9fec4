#include "agent/warm_room.h"

#include <gtest/gtest.h>

#include <vector>

namespace stasis::agent {
namespace {

constexpr uint64_t kGiB = uint64_t{1} << 30;

size_t too_many(const std::vector<uint64_t>& stored, uint64_t total, uint64_t free) {
  return warm_bases_too_many(stored, {total, free});
}

TEST(WarmRoomTest, TogetherTheyHaveATenthOfTheDisk) {
  EXPECT_EQ(too_many({4, 3, 3}, 100, 50), 0U);
  EXPECT_EQ(too_many({4, 3, 4}, 100, 50), 1U);
  EXPECT_EQ(too_many({1, 9, 3}, 100, 50), 2U);
  EXPECT_EQ(too_many({11}, 100, 50), 1U);
  EXPECT_EQ(too_many({}, 100, 50), 0U);
}

TEST(WarmRoomTest, OfAShortDiskTheyGiveBackWhatIsMissing) {
  EXPECT_EQ(too_many({1, 1, 1}, 100, 10), 0U);
  EXPECT_EQ(too_many({1, 1, 1}, 100, 9), 1U);
  EXPECT_EQ(too_many({1, 1, 1}, 100, 8), 2U);
  EXPECT_EQ(too_many({1, 1, 1}, 100, 0), 3U);
}

TEST(WarmRoomTest, ADiskIsShortBelowATenthOrFourGibibytes) {
  EXPECT_FALSE(is_short({100, 10}));
  EXPECT_TRUE(is_short({100, 9}));
  EXPECT_FALSE(is_short({1000 * kGiB, 4 * kGiB}));
  EXPECT_TRUE(is_short({1000 * kGiB, 4 * kGiB - 1}));
}

}  // namespace
}  // namespace stasis::agent
