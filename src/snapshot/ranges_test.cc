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

TEST(InChunksTest, PiecesThatAreOfTheSizeTogetherAndEndAtMultiplesOfIt) {
  using Ranges = std::vector<Range>;
  const auto chunks = [](const Ranges& ranges) {
    std::vector<Ranges> told;
    EXPECT_TRUE(in_chunks(ranges, 100, [&](std::span<const Range> pieces) -> Status {
      told.emplace_back(pieces.begin(), pieces.end());
      return {};
    }));
    return told;
  };
  EXPECT_EQ(chunks({}), std::vector<Ranges>{});
  EXPECT_EQ(chunks({{0, 100}}), (std::vector<Ranges>{{{0, 100}}}));
  EXPECT_EQ(chunks({{10, 10}, {30, 80}}), (std::vector<Ranges>{{{10, 10}, {30, 70}, {100, 10}}}));
  EXPECT_EQ(chunks({{150, 200}}), (std::vector<Ranges>{{{150, 50}}, {{200, 100}}, {{300, 50}}}));
  EXPECT_EQ(chunks({{10, 40}, {60, 30}, {220, 40}, {290, 10}}),
            (std::vector<Ranges>{{{10, 40}, {60, 30}}, {{220, 40}, {290, 10}}}));
}

TEST(InChunksTest, TheFirstErrorEndsIt) {
  int calls = 0;
  const std::vector<Range> ranges{{0, 300}};
  const Status ended = in_chunks(ranges, 100, [&](std::span<const Range>) -> Status {
    if (++calls == 2) return fail(Code::kInternal, "the second");
    return {};
  });
  ASSERT_FALSE(ended);
  EXPECT_EQ(ended.error().message, "the second");
  EXPECT_EQ(calls, 2);
}

}  // namespace
}  // namespace stasis::snapshot
