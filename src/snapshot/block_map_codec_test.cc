#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "snapshot/block_map.h"
#include "snapshot/crc32c.h"
#include "snapshot/testing/hostile.h"
#include "snapshot/testing/reseal.h"

namespace stasis::snapshot {
namespace {

using testing::Bytes;
using ::testing::HasSubstr;
using testing::pick;
using testing::Random;

constexpr size_t kLayersAt = 88;  // docs/format.md

const BlockMap& sample() {
  static const BlockMap map =
      BlockMap::from_extents({16 * kBlockSize, 3, Uuid{{0xaa}}, Uuid{{0xbb}}},
                             std::vector<Extent>{{0, 4 * kBlockSize, LayerId{Uuid{{1}}}, 0},
                                                 {4 * kBlockSize, 8 * kBlockSize, LayerId{}, 0},
                                                 {12 * kBlockSize, 3 * kBlockSize, LayerId{Uuid{{2}}}, 12 * kBlockSize},
                                                 {15 * kBlockSize, kBlockSize, LayerId{Uuid{{1}}}, 15 * kBlockSize}})
          .value();
  return map;
}

// A file as a hostile writer makes it: with checksums that are right.
class Forgery {
 public:
  Forgery() : bytes_(sample().encode().value()) {}
  template <typename T>
  Forgery& set(size_t offset, T value) {
    std::memcpy(bytes_.data() + offset, &value, sizeof(value));
    return *this;
  }
  Forgery& set_extent(size_t index, uint32_t first_block, uint32_t layer, uint64_t layer_offset) {
    const size_t at = kLayersAt + 2 * 16 + index * 16;
    return set(at, first_block).set(at + 4, layer).set(at + 8, layer_offset);
  }
  Bytes sealed() {
    testing::Resealer(bytes_).block_map();
    return bytes_;
  }
  std::string refusal() {
    const auto map = BlockMap::decode(sealed());
    if (map) return "";
    EXPECT_EQ(map.error().code, Code::kDataLoss);
    return map.error().message;
  }

 private:
  Bytes bytes_;
};

TEST(BlockMapCodecTest, Version1IsReadAsItWasWritten) {
  const Bytes golden = testing::from_hex(
      "535441534953424d0100000000100000000000000000000000000100000000000300000000000000aa00000000000000"
      "0000000000000000bb00000000000000000000000000000002000000040000005d23ef23e7622f1a0100000000000000"
      "000000000000000002000000000000000000000000000000000000000100000000000000000000000400000000000000"
      "00000000000000000c0000000200000000c00000000000000f0000000100000000f0000000000000");
  EXPECT_EQ(testing::hex(sample().encode().value()), testing::hex(golden));
  const auto map = BlockMap::decode(golden);
  ASSERT_TRUE(map) << map.error().message;
  EXPECT_EQ(map->metadata(), sample().metadata());
  EXPECT_EQ(map->extents(), sample().extents());
}

TEST(BlockMapCodecTest, OnlyTheWholeFileDecodes) {
  testing::expect_only_whole(sample().encode().value(), [](const Bytes& bytes) { return BlockMap::decode(bytes); });
}

TEST(BlockMapCodecTest, TheLargestAddressSpaceSurvives) {
  const uint64_t last = kMaxAddressSpace - kBlockSize;
  const BlockMap map = BlockMap::zeros(kMaxAddressSpace)
                           ->merge(LayerId{Uuid{{1}}}, std::vector<Change>{{{last, kBlockSize}, false}})
                           .value();
  const BlockMap decoded = BlockMap::decode(map.encode().value()).value();
  EXPECT_EQ(decoded.extents(), map.extents());
  EXPECT_EQ(decoded.find(kMaxAddressSpace - 1).offset, last);
}

TEST(BlockMapCodecTest, AnEmptyMapIsNotWritten) { EXPECT_EQ(BlockMap().encode().error().code, Code::kInvalidArgument); }

TEST(BlockMapCodecTest, ForgedHeadersAreRefused) {
  EXPECT_EQ(Forgery().refusal(), "");
  EXPECT_THAT(Forgery().set<uint32_t>(8, 2).refusal(), HasSubstr("version 2"));
  EXPECT_THAT(Forgery().set<uint32_t>(12, 8192).refusal(), HasSubstr("blocks of 8192"));
  EXPECT_THAT(Forgery().set<uint64_t>(16, 1).refusal(), HasSubstr("reserved"));
  EXPECT_THAT(Forgery().set<uint64_t>(24, 0).refusal(), HasSubstr("of 0 bytes"));
  EXPECT_THAT(Forgery().set<uint64_t>(24, kMaxAddressSpace * 2).refusal(), HasSubstr("address space"));
  EXPECT_THAT(Forgery().set<uint64_t>(24, 4097).refusal(), HasSubstr("address space"));
  EXPECT_THAT(Forgery().set<uint32_t>(72, 0xffffffff).refusal(), HasSubstr("too many"));
  EXPECT_THAT(Forgery().set<uint32_t>(72, 65'535).refusal(), HasSubstr("tables need"));
  EXPECT_THAT(Forgery().set<uint32_t>(72, 1).refusal(), HasSubstr("tables need"));
  EXPECT_THAT(Forgery().set<uint32_t>(76, 0).refusal(), HasSubstr("0 extents"));
  EXPECT_THAT(Forgery().set<uint32_t>(76, 0xffffffff).refusal(), HasSubstr("extents"));
  EXPECT_THAT(Forgery().set<uint32_t>(76, 16 << 20).refusal(), HasSubstr("tables need"));
}

TEST(BlockMapCodecTest, ForgedTablesAreRefused) {
  EXPECT_THAT(Forgery().set(kLayersAt, Uuid{}).refusal(), HasSubstr("nil layer"));
  EXPECT_THAT(Forgery().set(kLayersAt, Uuid{{2}}).refusal(), HasSubstr("twice"));
  EXPECT_THAT(Forgery().set_extent(0, 1, 1, 0).refusal(), HasSubstr("does not start at 0"));
  EXPECT_THAT(Forgery().set_extent(1, 0, 0, 0).refusal(), HasSubstr("extent 0 has no length"));
  EXPECT_THAT(Forgery().set_extent(1, 13, 0, 0).refusal(), HasSubstr("extent 1 has no length"));
  EXPECT_THAT(Forgery().set_extent(3, 16, 1, 15 * kBlockSize).refusal(), HasSubstr("extent 3 has no length"));
  EXPECT_THAT(Forgery().set_extent(2, 12, 3, 0).refusal(), HasSubstr("does not have"));
  EXPECT_THAT(Forgery().set_extent(1, 4, 0, kBlockSize).refusal(), HasSubstr("of zeros and has an offset"));
  EXPECT_THAT(Forgery().set_extent(2, 12, 2, 1).refusal(), HasSubstr("misaligned"));
  EXPECT_THAT(Forgery().set_extent(2, 12, 2, ~uint64_t{4095}).refusal(), HasSubstr("limit of a layer"));
  EXPECT_THAT(Forgery().set_extent(2, 12, 0, 0).refusal(), HasSubstr("continues"));
  EXPECT_THAT(Forgery().set_extent(2, 12, 1, 0).refusal(), HasSubstr("no extent uses"));
}

// Whatever is in a file with right checksums: it is refused, or it is a map that covers its address space and encodes
// to the same bytes.
TEST(BlockMapCodecTest, RandomForgeriesAreRefusedOrAreMaps) {
  Random random(4);
  int taken = 0;
  for (int i = 0; i < 20'000; ++i) {
    Forgery forgery;
    for (uint64_t changes = pick(random, 1, 3); changes > 0; --changes) {
      forgery.set(pick(random, 12, kLayersAt + 2 * 16 + 4 * 16 - 1), static_cast<uint8_t>(pick(random, 0, 17)));
    }
    const Bytes bytes = forgery.sealed();
    const auto map = BlockMap::decode(bytes);
    if (!map) continue;
    ++taken;
    ASSERT_EQ(map->encode().value(), bytes);
    uint64_t end = 0;
    for (const Extent& extent : map->extents()) {
      ASSERT_EQ(extent.offset, end);
      ASSERT_EQ(map->find(extent.end() - 1), extent);
      end = extent.end();
    }
    ASSERT_EQ(end, map->size());
  }
  EXPECT_GT(taken, 100);
}

TEST(Crc32cTest, KnownValueAndBothWaysAgree) {
  const std::string digits = "123456789";
  EXPECT_EQ(crc32c(std::as_bytes(std::span(digits))), 0xE3069283U);
  Random random(5);
  for (size_t size = 0; size < 20'000; size = size < 100 ? size + 1 : size + testing::pick(random, 1, 500)) {
    const Bytes bytes = testing::random_bytes(random, size);
    const auto all = std::span<const std::byte>(bytes);
    ASSERT_EQ(crc32c(all), crc32c_portable(all)) << size << " bytes";
    const size_t first = testing::pick(random, 0, size);
    ASSERT_EQ(crc32c(all.subspan(first), crc32c(all.first(first))), crc32c(all)) << size << " bytes";
    ASSERT_EQ(crc32c_portable(all.subspan(first), crc32c_portable(all.first(first))), crc32c(all));
  }
}

// A table of more entries than are checked at once, sealed, with one of them changed.
class LargeForgery {
 public:
  static constexpr uint64_t kExtents = 10'000;
  static constexpr uint64_t kBlocks = 2 * kExtents;
  LargeForgery() : bytes_(map().encode().value()) {}

  // Of zeros and of a layer in turn, two blocks each.
  static BlockMap map() {
    std::vector<Change> changes;
    for (uint64_t i = 1; i < kExtents; i += 2) changes.push_back({testing::blocks(2 * i, 2), false});
    const BlockMap zeros = BlockMap::zeros(kBlocks * kBlockSize).value();
    return zeros.merge(LayerId{Uuid{{1}}}, changes).value();
  }
  LargeForgery& set_blocks(uint64_t blocks) { return set(24, blocks * kBlockSize); }
  LargeForgery& set_first_block(size_t index, uint32_t first_block) { return set(extent_at(index), first_block); }
  LargeForgery& set_layer(size_t index, uint32_t layer) { return set(extent_at(index) + 4, layer); }
  LargeForgery& set_layer_offset(size_t index, uint64_t offset) { return set(extent_at(index) + 8, offset); }
  std::string refusal() {
    testing::Resealer(bytes_).block_map();
    const auto decoded = BlockMap::decode(bytes_);
    if (!decoded) return decoded.error().message;
    EXPECT_EQ(decoded->encode().value(), bytes_);
    return "";
  }

 private:
  static size_t extent_at(size_t index) { return kLayersAt + 16 + index * 16; }
  template <typename T>
  LargeForgery& set(size_t at, T value) {
    std::memcpy(bytes_.data() + at, &value, sizeof(value));
    return *this;
  }
  Bytes bytes_;
};

// At the ends of what is checked at once, and within.
const std::vector<size_t> kPlaces = {1,    2,    3,    1022, 1023, 1024, 1025, 1026, 4094, 4095,
                                     4096, 4097, 4098, 6001, 6002, 8191, 8192, 9998, 9999};

std::string extent(size_t index) { return "extent " + std::to_string(index) + " "; }

TEST(BlockMapCodecTest, LargeTablesAreCheckedToTheLastEntry) {
  ASSERT_EQ(LargeForgery::map().extent_count(), LargeForgery::kExtents);
  EXPECT_EQ(LargeForgery().refusal(), "");
  EXPECT_EQ(BlockMap::decode(LargeForgery::map().encode().value())->extents(), LargeForgery::map().extents());
  for (const size_t index : kPlaces) {
    const auto before = static_cast<uint32_t>(2 * (index - 1));
    EXPECT_EQ(LargeForgery().set_first_block(index, before + 1).refusal(), "") << "another place, and still in order";
    EXPECT_THAT(LargeForgery().set_first_block(index, before).refusal(),
                HasSubstr(extent(index - 1) + "has no length"));
    for (const uint32_t behind : {0x7fffffffU, 0x80000000U, 0xffffffffU}) {
      EXPECT_THAT(LargeForgery().set_first_block(index, behind).refusal(), HasSubstr(extent(index) + "has no length"));
      EXPECT_THAT(LargeForgery().set_layer(index, behind).refusal(), HasSubstr(extent(index) + "names a layer"));
    }
    EXPECT_THAT(LargeForgery().set_layer(index, 2).refusal(), HasSubstr(extent(index) + "names a layer"));
  }
  for (const uint64_t blocks : {uint64_t{1}, uint64_t{100}, LargeForgery::kBlocks / 2, LargeForgery::kBlocks - 2}) {
    EXPECT_THAT(LargeForgery().set_blocks(blocks).refusal(), HasSubstr("has no length")) << blocks;
  }
}

TEST(BlockMapCodecTest, OffsetsInLargeTablesAreCheckedToTheLastEntry) {
  for (const size_t index : kPlaces) {
    const bool zeros = index % 2 == 0;
    for (const uint64_t offset : {uint64_t{1} << 12, uint64_t{1} << 31, uint64_t{1} << 32, uint64_t{1} << 63}) {
      if (zeros) {
        EXPECT_THAT(LargeForgery().set_layer_offset(index, offset).refusal(), HasSubstr(extent(index) + "is of zeros"));
      }
    }
    if (zeros) {
      EXPECT_THAT(LargeForgery().set_layer(index - 1, 0).set_layer_offset(index - 1, 0).refusal(),
                  HasSubstr("continues"));
      const uint64_t goes_on = 2 * index * kBlockSize;
      EXPECT_THAT(LargeForgery().set_layer(index, 1).set_layer_offset(index, goes_on).refusal(),
                  HasSubstr(extent(index) + "continues"));
      EXPECT_EQ(LargeForgery().set_layer(index, 1).set_layer_offset(index, goes_on + kBlockSize).refusal(), "");
      continue;
    }
    EXPECT_EQ(LargeForgery().set_layer_offset(index, kMaxAddressSpace - 2 * kBlockSize).refusal(), "") << "at its end";
    EXPECT_THAT(LargeForgery().set_layer_offset(index, kMaxAddressSpace - kBlockSize).refusal(),
                HasSubstr(extent(index) + "ends behind"));
    EXPECT_THAT(LargeForgery().set_layer_offset(index, ~uint64_t{4095}).refusal(), HasSubstr("ends behind"));
    EXPECT_THAT(LargeForgery().set_layer_offset(index, 1).refusal(), HasSubstr(extent(index) + "has a misaligned"));
  }
}

// Its entries are beyond what the fast check answers for.
TEST(BlockMapCodecTest, LargeTablesOfTheLargestAddressSpaceAreTaken) {
  constexpr uint64_t kBlocks = kMaxAddressSpace / kBlockSize;
  EXPECT_EQ(LargeForgery().set_blocks(kBlocks).refusal(), "");
  for (const uint32_t far : {0x7fffffffU, 0x80000000U, 0xffffffffU}) {
    EXPECT_EQ(LargeForgery().set_blocks(kBlocks).set_first_block(9999, far).refusal(), "");
    EXPECT_THAT(LargeForgery().set_blocks(kBlocks).set_first_block(9000, far).refusal(),
                HasSubstr(extent(9000) + "has no length"));
  }
  EXPECT_THAT(LargeForgery().set_blocks(kBlocks).set_layer_offset(9999, kMaxAddressSpace / 2).refusal(),
              HasSubstr(extent(9999) + "ends behind"));
}

}  // namespace
}  // namespace stasis::snapshot
