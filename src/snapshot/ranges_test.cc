#include "snapshot/ranges.h"

#include <gtest/gtest.h>

namespace stasis::snapshot {
namespace {

TEST(IntersectTest, CommonParts) {
  using Ranges = std::vector<Range>;
  const auto intersect = [](const Ranges& a, const Ranges& b) { return snapshot::intersect(a, b); };
  EXPECT_EQ(intersect({}, {}), Ranges{});
  EXPECT_EQ(intersect({{0, 10}}, {}), Ranges{});
  EXPECT_EQ(intersect({{0, 10}}, {{10, 5}}), Ranges{});
  EXPECT_EQ(intersect({{0, 10}}, {{0, 10}}), (Ranges{{0, 10}}));
  EXPECT_EQ(intersect({{0, 100}}, {{5, 5}, {20, 10}, {90, 50}}), (Ranges{{5, 5}, {20, 10}, {90, 10}}));
  EXPECT_EQ(intersect({{5, 5}, {20, 10}, {90, 50}}, {{0, 100}}), (Ranges{{5, 5}, {20, 10}, {90, 10}}));
  EXPECT_EQ(intersect({{0, 6}, {8, 4}}, {{4, 6}, {11, 9}}), (Ranges{{4, 2}, {8, 2}, {11, 1}}));
}

}  // namespace
}  // namespace stasis::snapshot
