#include "snapshot/block_map.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "snapshot/testing/fixtures.h"

namespace stasis::snapshot {
namespace {

using testing::blocks;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::pick;
using testing::Random;

const LayerId kA{Uuid{{1}}};
const LayerId kB{Uuid{{2}}};
const LayerId kC{Uuid{{3}}};
const LayerId kNil{};

Extent extent(uint64_t first, uint64_t count, LayerId layer, uint64_t layer_first) {
  return {first * kBlockSize, count * kBlockSize, layer, layer_first * kBlockSize};
}

BlockMap map_of(uint64_t size_in_blocks, const std::vector<Extent>& extents) {
  return BlockMap::from_extents({size_in_blocks * kBlockSize, 0, Uuid{{9}}, {}}, extents).value();
}

std::string refusal(const std::vector<Extent>& extents) {
  const auto map = BlockMap::from_extents({4 * kBlockSize, 0, {}, {}}, extents);
  if (map) return "";
  EXPECT_EQ(map.error().code, Code::kInvalidArgument);
  return map.error().message;
}

TEST(BlockMapTest, ZerosIsOneExtentWithoutLayers) {
  const BlockMap map = BlockMap::zeros(kMaxAddressSpace).value();
  EXPECT_THAT(map.extents(), ElementsAre(Extent{0, kMaxAddressSpace, kNil, 0}));
  EXPECT_THAT(map.layers(), IsEmpty());
  EXPECT_EQ(map.metadata().generation, 0U);
  EXPECT_TRUE(map.metadata().base_id.is_nil());
  EXPECT_EQ(map.find(kMaxAddressSpace - 1), (Extent{0, kMaxAddressSpace, kNil, 0}));
}

TEST(BlockMapTest, SizesThatNoAddressSpaceHasAreRefused) {
  for (const uint64_t size : {uint64_t{0}, uint64_t{1}, kBlockSize + 1, kMaxAddressSpace + kBlockSize, ~uint64_t{0}}) {
    EXPECT_EQ(BlockMap::zeros(size).error().code, Code::kInvalidArgument) << size;
    EXPECT_EQ(BlockMap::from_extents({size, 0, {}, {}}, {}).error().code, Code::kInvalidArgument) << size;
  }
}

TEST(BlockMapTest, NeighboursAreMergedOnlyIfTheyContinueInTheLayerToo) {
  const BlockMap map = map_of(12, {extent(0, 2, kA, 0), extent(2, 2, kA, 2), extent(4, 2, kA, 5), extent(6, 2, kB, 7),
                                   extent(8, 2, kNil, 0), extent(10, 2, kNil, 0)});
  EXPECT_THAT(map.extents(),
              ElementsAre(extent(0, 4, kA, 0), extent(4, 2, kA, 5), extent(6, 2, kB, 7), extent(8, 4, kNil, 0)));
  EXPECT_THAT(map.layers(), ElementsAre(kA, kB));
}

TEST(BlockMapTest, TheEndOfTheLargestLayerIsNotContinuedByItsStart) {
  const uint64_t last = kMaxAddressSpace / kBlockSize - 1;
  const BlockMap map = map_of(2, {extent(0, 1, kA, last), extent(1, 1, kA, 0)});
  EXPECT_THAT(map.extents(), ElementsAre(extent(0, 1, kA, last), extent(1, 1, kA, 0)));
  EXPECT_EQ(BlockMap::decode(map.encode().value()).value().extents(), map.extents());
}

TEST(BlockMapTest, ExtentsThatAreNotAMapAreRefused) {
  EXPECT_EQ(refusal({extent(0, 4, kA, 0)}), "");
  EXPECT_THAT(refusal({}), HasSubstr("end at 0"));
  EXPECT_THAT(refusal({extent(0, 3, kA, 0)}), HasSubstr("end at 12288"));
  EXPECT_THAT(refusal({extent(1, 3, kA, 0)}), HasSubstr("does not start"));
  EXPECT_THAT(refusal({extent(0, 2, kA, 0), extent(1, 3, kA, 0)}), HasSubstr("does not start"));
  EXPECT_THAT(refusal({extent(0, 2, kA, 0), extent(3, 1, kA, 0)}), HasSubstr("does not start"));
  EXPECT_THAT(refusal({extent(0, 5, kA, 0)}), HasSubstr("behind the address space"));
  EXPECT_THAT(refusal({{0, ~uint64_t{4095}, kA, 0}}), HasSubstr("behind the address space"));
  EXPECT_THAT(refusal({extent(0, 0, kA, 0), extent(0, 4, kA, 0)}), HasSubstr("length"));
  EXPECT_THAT(refusal({{0, 4 * kBlockSize, kA, 1}}), HasSubstr("multiple of 4096"));
  EXPECT_THAT(refusal({{0, 4 * kBlockSize, kA, ~uint64_t{4095}}}), HasSubstr("limit of a layer"));
  EXPECT_THAT(refusal({extent(0, 4, kNil, 1)}), HasSubstr("zeros"));
}

TEST(BlockMapTest, MergeLaysChangesOver) {
  const BlockMap base = map_of(10, {extent(0, 8, kA, 0), extent(8, 2, kNil, 0)});
  const BlockMap map =
      base.merge(kB, std::vector<Change>{{blocks(1, 2), false}, {blocks(3, 1), true}, {blocks(7, 2), false}}).value();
  EXPECT_THAT(map.extents(), ElementsAre(extent(0, 1, kA, 0), extent(1, 2, kB, 1), extent(3, 1, kNil, 0),
                                         extent(4, 3, kA, 4), extent(7, 2, kB, 7), extent(9, 1, kNil, 0)));
  EXPECT_EQ(map.metadata().generation, 1U);
  EXPECT_EQ(map.metadata().base_id, base.metadata().id);
  EXPECT_NE(map.metadata().id, base.metadata().id);
  EXPECT_EQ(base.extent_count(), 2U);
}

TEST(BlockMapTest, MergeForgetsLayersThatAreWhollyCovered) {
  const BlockMap base = map_of(4, {extent(0, 1, kA, 0), extent(1, 2, kB, 1), extent(3, 1, kC, 3)});
  const BlockMap map = base.merge(kNil, std::vector<Change>{{blocks(1, 2), true}}).value();
  EXPECT_THAT(map.layers(), ElementsAre(kA, kC));
  EXPECT_EQ(map.find(3 * kBlockSize).layer, kC);
}

TEST(BlockMapTest, MergeOfNothingIsTheNextGeneration) {
  const BlockMap base = map_of(4, {extent(0, 4, kA, 0)});
  const BlockMap map = base.merge(kNil, {}).value();
  EXPECT_EQ(map.extents(), base.extents());
  EXPECT_EQ(map.metadata().generation, 1U);
}

TEST(BlockMapTest, ChangesThatAreNotAListAreRefused) {
  const BlockMap base = map_of(4, {extent(0, 4, kA, 0)});
  const auto code = [&](LayerId layer, const std::vector<Change>& changes) {
    return base.merge(layer, changes).error().code;
  };
  EXPECT_EQ(code(kB, {{blocks(3, 2), false}}), Code::kInvalidArgument);
  EXPECT_EQ(code(kB, {{blocks(5, 1), false}}), Code::kInvalidArgument);
  EXPECT_EQ(code(kB, {{blocks(1, 0), false}}), Code::kInvalidArgument);
  EXPECT_EQ(code(kB, {{{1, kBlockSize}, false}}), Code::kInvalidArgument);
  EXPECT_EQ(code(kB, {{{0, kBlockSize + 1}, false}}), Code::kInvalidArgument);
  EXPECT_EQ(code(kB, {{blocks(2, 1), false}, {blocks(0, 1), false}}), Code::kInvalidArgument);
  EXPECT_EQ(code(kB, {{blocks(0, 2), false}, {blocks(1, 1), true}}), Code::kInvalidArgument);
  EXPECT_EQ(code(kNil, {{blocks(0, 1), false}}), Code::kInvalidArgument);
}

TEST(BlockMapTest, GenerationsCountFromTheFirstThatIsStored) {
  const BlockMap zeros = BlockMap::zeros(4 * kBlockSize).value();
  EXPECT_TRUE(zeros.metadata().id.is_nil());
  const BlockMap first = zeros.grow(8 * kBlockSize)->merge(kA, std::vector<Change>{{blocks(0, 1), false}}).value();
  EXPECT_EQ(first.metadata().generation, 0U);
  EXPECT_TRUE(first.metadata().base_id.is_nil());
  const BlockMap second = first.merge(kNil, {}).value();
  EXPECT_EQ(second.metadata().generation, 1U);
  EXPECT_EQ(second.metadata().base_id, first.metadata().id);
}

TEST(BlockMapTest, GrowAppendsZerosAndKeepsTheGeneration) {
  const BlockMap base = map_of(4, {extent(0, 4, kA, 0)}).merge(kNil, {}).value();
  const BlockMap map = base.grow(6 * kBlockSize).value();
  EXPECT_THAT(map.extents(), ElementsAre(extent(0, 4, kA, 0), extent(4, 2, kNil, 0)));
  EXPECT_EQ(map.metadata().generation, 1U);
  EXPECT_EQ(map.grow(8 * kBlockSize)->extent_count(), 2U);
  EXPECT_EQ(base.grow(base.size())->metadata(), base.metadata());
  EXPECT_EQ(base.grow(3 * kBlockSize).error().code, Code::kInvalidArgument);
  EXPECT_EQ(base.grow(4 * kBlockSize + 1).error().code, Code::kInvalidArgument);
}

TEST(BlockMapTest, MoreLayersThanTheLimitAreRefusedWhereTheyArise) {
  std::vector<Extent> extents;
  for (uint64_t i = 0; i <= kMaxLayers; ++i) {
    LayerId layer;
    layer.uuid.bytes = {1, static_cast<uint8_t>(i), static_cast<uint8_t>(i >> 8), static_cast<uint8_t>(i >> 16)};
    extents.push_back(extent(i, 1, layer, i));
  }
  const uint64_t size = extents.size() * kBlockSize;
  EXPECT_EQ(BlockMap::from_extents({size, 0, {}, {}}, extents).error().code, Code::kResourceExhausted);
  extents.back().layer = extents.front().layer;
  const BlockMap full = BlockMap::from_extents({size, 0, {}, {}}, extents).value();
  EXPECT_TRUE(BlockMap::decode(full.encode().value()));
  EXPECT_EQ(full.merge(kNil, std::vector<Change>{{blocks(kMaxLayers, 1), true}})->layers().size(), kMaxLayers);
  LayerId fresh = LayerId::random();
  EXPECT_EQ(full.merge(fresh, std::vector<Change>{{blocks(kMaxLayers, 1), false}}).error().code,
            Code::kResourceExhausted);
}

TEST(BlockMapTest, MoreExtentsThanTheLimitAreRefusedWhereTheyArise) {
  std::vector<Change> changes;  // every other block: each change is an extent with one of zeros before it
  changes.reserve(kMaxExtents / 2);
  for (uint64_t block = 1; block < kMaxExtents; block += 2) changes.push_back({blocks(block, 1), false});
  const LayerId layer = LayerId::random();
  EXPECT_EQ(BlockMap::zeros(kMaxExtents * kBlockSize)->merge(layer, changes)->extent_count(), kMaxExtents);
  const auto refused = BlockMap::zeros((kMaxExtents + 1) * kBlockSize)->merge(layer, changes);  // zeros at the end
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::kResourceExhausted);
  EXPECT_THAT(refused.error().message, HasSubstr("limit is 16777216"));
}

// What a block is, in the model: a layer and a block of it.
struct Place {
  LayerId layer;
  uint64_t block = 0;
};

std::vector<Change> random_changes(Random& random, uint64_t size_in_blocks) {
  std::vector<Change> changes;
  for (uint64_t at = pick(random, 0, 8); at < size_in_blocks;) {
    const uint64_t count = std::min(pick(random, 1, 6), size_in_blocks - at);
    changes.push_back({blocks(at, count), pick(random, 0, 2) == 0});
    at += count + pick(random, 0, 20);
  }
  return changes;
}

void expect_like_model(const BlockMap& map, const std::vector<Place>& model) {
  std::set<LayerId> used;
  for (uint64_t block = 0; block < model.size(); ++block) {
    const Extent found = map.find(block * kBlockSize + block % kBlockSize);
    ASSERT_EQ(found.layer, model[block].layer) << "block " << block;
    ASSERT_LE(found.offset, block * kBlockSize);
    ASSERT_GT(found.end(), block * kBlockSize);
    if (found.is_zero()) continue;
    ASSERT_EQ(found.layer_offset + block * kBlockSize - found.offset, model[block].block * kBlockSize)
        << "block " << block;
    used.insert(found.layer);
  }
  EXPECT_EQ(std::set<LayerId>(map.layers().begin(), map.layers().end()), used);
}

TEST(BlockMapTest, ManyGenerationsAreLikeTheModel) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Random random(seed);
    const uint64_t size = pick(random, 1, 400);
    std::vector<Place> model(size);
    BlockMap map = BlockMap::zeros(size * kBlockSize).value();
    for (uint64_t generation = 1; generation <= 12; ++generation) {
      const LayerId layer = LayerId::random();
      const auto changes = random_changes(random, size);
      for (const Change& change : changes) {
        for (uint64_t b = change.range.offset / kBlockSize; b < change.range.end() / kBlockSize; ++b) {
          model[b] = change.zero ? Place{} : Place{layer, b};
        }
      }
      map = map.merge(layer, changes).value();
      expect_like_model(map, model);
      const auto decoded = BlockMap::decode(map.encode().value());
      ASSERT_TRUE(decoded) << decoded.error().message;  // decode() refuses neighbours that should have been merged
      EXPECT_EQ(decoded->extents(), map.extents());
      EXPECT_EQ(decoded->metadata(), map.metadata());
      EXPECT_EQ(map.metadata().generation, generation - 1);
    }
  }
}

// A map of `count` extents whose lengths are drawn by `length`: what a plain search finds in it is what find() finds.
template <typename Length>
void expect_found_like_plain_search(Random& random, uint64_t count, Length length) {
  std::vector<Extent> extents;
  uint64_t at = 0;
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t blocks_in_it = length(i);
    extents.push_back(extent(at, blocks_in_it, i % 2 == 0 ? kA : kNil, i % 2 == 0 ? at + 7 : 0));
    at += blocks_in_it;
  }
  const BlockMap built = map_of(at, extents);
  const BlockMap decoded = BlockMap::decode(built.encode().value()).value();
  const auto check = [&](uint64_t offset) {
    const auto after = std::upper_bound(extents.begin(), extents.end(), offset,
                                        [](uint64_t value, const Extent& e) { return value < e.offset; });
    ASSERT_EQ(built.find(offset), *std::prev(after)) << "of " << count << " at " << offset;
    ASSERT_EQ(decoded.find(offset), *std::prev(after)) << "of " << count << " at " << offset;
  };
  for (const Extent& e : extents) {
    check(e.offset);
    check(e.end() - 1);
  }
  for (int i = 0; i < 1000; ++i) check(pick(random, 0, at * kBlockSize - 1));
}

TEST(BlockMapTest, FindsWhatAPlainSearchFinds) {
  Random random(21);
  for (const uint64_t count : {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 100, 1023, 1024, 1025, 5000}) {
    expect_found_like_plain_search(random, count, [](uint64_t) { return uint64_t{1}; });
    expect_found_like_plain_search(random, count, [&](uint64_t) { return pick(random, 1, 50); });
    // All in one corner: the buckets are of no use.
    expect_found_like_plain_search(random, count, [&](uint64_t i) { return i == 0 ? uint64_t{1} << 31 : 1; });
    expect_found_like_plain_search(random, count, [&](uint64_t i) { return i + 1 == count ? uint64_t{1} << 31 : 1; });
    // Lengths of every order of magnitude.
    expect_found_like_plain_search(random, count, [&](uint64_t) { return uint64_t{1} << pick(random, 0, 19); });
  }
}

}  // namespace
}  // namespace stasis::snapshot
