#include "snapshot/capture.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <system_error>

#include "base/testing/sync_points.h"
#include "snapshot/testing/fixtures.h"

namespace stasis::snapshot {
namespace {

using stasis::testing::AtPoint;
using testing::block_of;
using testing::blocks;
using testing::Bytes;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::Memory;
using testing::Random;
using testing::random_bytes;
using testing::read_all;

class CaptureTest : public testing::StoreTest {
 protected:
  std::shared_ptr<AddressSpace> zeros(uint64_t size) { return open(BlockMap::zeros(size).value()); }
};

TEST_F(CaptureTest, FirstGenerationStoresTheBlocksThatAreNotZero) {
  Memory memory(4 << 20);
  memory.write(3 * kBlockSize, block_of(1));
  memory.write(4 * kBlockSize, block_of(2));
  memory.write(700 * kBlockSize, block_of(3));
  const auto result = take(memory, {memory.whole()}, *zeros(4 << 20));
  ASSERT_TRUE(result) << result.error().message;
  EXPECT_EQ(result->blocks_compared, 1024U);
  EXPECT_EQ(result->blocks_stored, 3U);
  EXPECT_EQ(result->blocks_zeroed, 0U);
  ASSERT_TRUE(result->layer);
  EXPECT_EQ(result->layer->data_bytes, 3 * kBlockSize);
  EXPECT_EQ(result->map.metadata().generation, 0U);
  EXPECT_EQ(read_all(*open(result->map)), memory.content);
  const auto info = fs_.info(layer_data_path(store_.layers_dir(), result->layer->id));
  EXPECT_EQ(info->size, 4U << 20);
  EXPECT_LE(info->stored_bytes, 4 * kBlockSize);
}

TEST_F(CaptureTest, APageTheGuestZeroedReadsAsZerosInTheNextGeneration) {
  Memory memory(1 << 20);
  memory.write(0, Bytes(1 << 20, std::byte{7}));
  const auto first = take(memory, {memory.whole()}, *zeros(1 << 20));
  ASSERT_TRUE(first);
  memory.zero(blocks(5, 1));
  memory.zero(blocks(100, 20));
  const auto second = take(memory, {blocks(5, 1), blocks(90, 40)}, *open(first->map));
  ASSERT_TRUE(second) << second.error().message;
  EXPECT_EQ(second->blocks_zeroed, 21U);
  EXPECT_EQ(second->blocks_stored, 0U);
  EXPECT_FALSE(second->layer);
  const auto space = open(second->map);
  EXPECT_EQ(read_all(*space), memory.content);
  Bytes block(kBlockSize, std::byte{1});
  ASSERT_TRUE(space->read(5 * kBlockSize, block));
  EXPECT_EQ(block, Bytes(kBlockSize));
  EXPECT_TRUE(second->map.find(5 * kBlockSize).is_zero());
}

TEST_F(CaptureTest, BlocksEqualToTheParentsAreNotStored) {
  Random random(1);
  Memory memory(2 << 20);
  memory.write(0, random_bytes(random, 2 << 20));
  memory.zero(blocks(200, 10));
  const auto first = take(memory, {memory.whole()}, *zeros(2 << 20));
  ASSERT_TRUE(first);
  memory.write(17 * kBlockSize, block_of(9));
  Bytes last_byte = block_of(9);
  last_byte.back() = std::byte{1};
  memory.write(18 * kBlockSize, last_byte);
  const auto second = take(memory, {memory.whole()}, *open(first->map));
  ASSERT_TRUE(second);
  EXPECT_EQ(second->blocks_compared, 512U);
  EXPECT_EQ(second->blocks_stored, 2U);
  EXPECT_EQ(second->blocks_zeroed, 0U);
  EXPECT_EQ(read_all(*open(second->map)), memory.content);

  const auto third = take(memory, {memory.whole()}, *open(second->map));
  ASSERT_TRUE(third);
  EXPECT_FALSE(third->layer);
  EXPECT_EQ(third->map.extents(), second->map.extents());
  EXPECT_EQ(third->map.metadata().generation, 2U);
  EXPECT_EQ(layer_files().size(), 4U);
}

TEST_F(CaptureTest, OnlyCandidatesAreReadAndRemovedRangesAreZeros) {
  Memory memory(1 << 20);
  memory.write(0, Bytes(1 << 20, std::byte{7}));
  const auto first = take(memory, {memory.whole()}, *zeros(1 << 20));
  ASSERT_TRUE(first);
  // What the guest gave back may still hold old bytes in the file; where both lists name a block, the file counts.
  memory.write(12 * kBlockSize, block_of(1));
  const auto second = take(memory, {blocks(12, 1)}, *open(first->map), {blocks(10, 5), blocks(255, 1)});
  ASSERT_TRUE(second) << second.error().message;
  EXPECT_EQ(second->blocks_compared, 1U);
  EXPECT_EQ(second->blocks_stored, 1U);
  EXPECT_EQ(second->blocks_zeroed, 5U);
  Bytes expected = memory.content;
  for (const Range zero : {blocks(10, 2), blocks(13, 2), blocks(255, 1)}) {
    std::fill_n(expected.begin() + static_cast<ptrdiff_t>(zero.offset), zero.length, std::byte{0});
  }
  EXPECT_EQ(read_all(*open(second->map)), expected);

  const auto third = take(memory, {}, *open(second->map), {blocks(10, 1)});
  ASSERT_TRUE(third);
  EXPECT_EQ(third->blocks_zeroed, 0U) << "it was zeros already";
}

TEST_F(CaptureTest, ListsThatAreNoListsAndSourcesThatAreTooShortAreRefused) {
  Memory memory(8 * kBlockSize);
  const auto base = zeros(16 * kBlockSize);
  EXPECT_EQ(take(memory, {blocks(2, 1), blocks(1, 1)}, *base).error().code, Code::kInvalidArgument);
  EXPECT_EQ(take(memory, {{1, kBlockSize}}, *base).error().code, Code::kInvalidArgument);
  EXPECT_EQ(take(memory, {blocks(15, 2)}, *base).error().code, Code::kInvalidArgument);
  EXPECT_EQ(take(memory, {}, *base, {blocks(15, 2)}).error().code, Code::kInvalidArgument);
  memory.write(0, block_of(1));
  EXPECT_EQ(take(memory, {blocks(0, 16)}, *base).error().code, Code::kOutOfRange);
  EXPECT_THAT(layer_files(), IsEmpty());
}

TEST_F(CaptureTest, ADamagedParentCostsOnlyWhatItDamages) {
  Random random(2);
  Memory memory(1 << 20);
  memory.write(0, random_bytes(random, 1 << 20));
  const auto first = take(memory, {memory.whole()}, *zeros(1 << 20));
  ASSERT_TRUE(first);
  testing::damage_file(layer_data_path(store_.layers_dir(), first->layer->id), 3 * kFrameSize + 5);
  memory.zero(blocks(50, 1));
  memory.write(200 * kBlockSize, block_of(4));
  const auto second = take(memory, {memory.whole()}, *open(first->map));
  ASSERT_TRUE(second) << second.error().message;
  EXPECT_EQ(second->blocks_incomparable, 16U);
  EXPECT_EQ(second->blocks_stored, 15U + 1U);
  EXPECT_EQ(second->blocks_zeroed, 1U);
  EXPECT_EQ(read_all(*open(second->map)), memory.content) << "the new generation stands without the damaged frame";
}

TEST_F(CaptureTest, AParentThatIsCutShortMeanwhileIsIncomparableAndNotASignal) {
  Random random(3);
  Memory memory(1 << 20);
  memory.write(0, random_bytes(random, 1 << 20));
  const auto first = take(memory, {memory.whole()}, *zeros(1 << 20));
  ASSERT_TRUE(first);
  const auto parent = open(first->map);
  ASSERT_EQ(read_all(*parent), memory.content) << "verified, so that it is compared where it is mapped";
  const Path file = layer_data_path(store_.layers_dir(), first->layer->id);
  std::filesystem::permissions(file, std::filesystem::perms(0600));
  std::filesystem::resize_file(file, (1 << 20) - kFrameSize - kBlockSize);
  const auto second = take(memory, {memory.whole()}, *parent);
  ASSERT_TRUE(second) << second.error().message;
  EXPECT_EQ(second->blocks_incomparable, 32U);
  EXPECT_EQ(second->blocks_stored, 32U);
  EXPECT_EQ(second->blocks_zeroed, 0U);
}

// One way of being given the memory, and one of having the parent.
struct Way {
  enum { kFile, kProcess, kInPlace } memory;
  bool parent_verified;
};

// The bytes of `memory` as this process has them.
MemorySource process_of(const Memory& memory) {
  return MemorySource::of_process(::getpid(), reinterpret_cast<uint64_t>(memory.content.data()));
}

class EveryWay : public CaptureTest, public ::testing::WithParamInterface<Way> {
 protected:
  // Random content over random parents, against the plainest capture there is: block by block.
  void capture_generations(uint64_t seed, uint64_t least_blocks, uint64_t most_blocks) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Random random(seed);
    const uint64_t count = testing::pick(random, least_blocks, most_blocks);
    Memory memory(count * kBlockSize);
    BlockMap map = BlockMap::zeros(count * kBlockSize).value();
    for (int generation = 0; generation < 4; ++generation) {
      const auto base = open(map);
      const Bytes before = memory.content;
      if (GetParam().parent_verified) {
        ASSERT_EQ(read_all(*base), before);
      }
      std::vector<Range> candidates;
      uint64_t stored = 0;
      uint64_t zeroed = 0;
      for (uint64_t block = 0; block < count; ++block) {
        const uint64_t what = testing::pick(random, 0, 5);
        if (what == 0) continue;
        candidates.push_back(blocks(block, 1));
        if (what == 1) memory.zero(blocks(block, 1));
        if (what >= 4) memory.write(block * kBlockSize, random_bytes(random, kBlockSize));
        const auto at = static_cast<ptrdiff_t>(block * kBlockSize);
        const auto is_same =
            std::equal(before.begin() + at, before.begin() + at + kBlockSize, memory.content.begin() + at);
        const bool zero = std::all_of(memory.content.begin() + at, memory.content.begin() + at + kBlockSize,
                                      [](std::byte byte) { return byte == std::byte{0}; });
        stored += is_same || zero ? 0 : 1;
        zeroed += !is_same && zero ? 1 : 0;
      }
      std::vector<Range> joined;
      for (const Range& range : candidates) append_range(joined, range);
      const MemorySource process = process_of(memory);
      CaptureSource source{GetParam().memory == Way::kProcess ? process : memory.source(), joined, {}};
      if (GetParam().memory == Way::kInPlace) source.in_place = memory.content;
      const auto result = capture(fs_, store_.layers_dir(), source, *base);
      ASSERT_TRUE(result) << result.error().message;
      EXPECT_EQ(result->blocks_compared, candidates.size());
      EXPECT_EQ(result->blocks_stored, stored);
      EXPECT_EQ(result->blocks_zeroed, zeroed);
      EXPECT_EQ(result->blocks_incomparable, 0U);
      map = result->map;
      ASSERT_EQ(read_all(*open(map)), memory.content);  // verifies all checksums too
    }
  }
};

// Of sizes that end within frames and chunks.
TEST_P(EveryWay, StoresWhatAPlainLoopStores) {
  for (uint64_t seed = 1; seed <= 12; ++seed) capture_generations(seed, 1, 150);
}

TEST_P(EveryWay, StoresTheSameOfMuchWhichIsReadAhead) {
  int chunks = 0;
  const AtPoint read("read_ahead.read", [&](void*) { ++chunks; });
  capture_generations(1, 900, 1500);
  EXPECT_EQ(chunks > 16, GetParam().memory != Way::kInPlace) << chunks;
}

TEST_P(EveryWay, StoresTheSameWhereThereIsNoThreadToReadAhead) {
  const AtPoint refused("read_ahead.start", [](void*) { throw std::system_error(EAGAIN, std::generic_category()); });
  const AtPoint read("read_ahead.read", [](void*) { ADD_FAILURE(); });
  capture_generations(1, 900, 1500);
}

INSTANTIATE_TEST_SUITE_P(, EveryWay,
                         ::testing::Values(Way{Way::kFile, false}, Way{Way::kFile, true}, Way{Way::kProcess, false},
                                           Way{Way::kProcess, true}, Way{Way::kInPlace, false},
                                           Way{Way::kInPlace, true}));

TEST_F(CaptureTest, MemoryThatTheProcessHasOnlyInPartIsRefused) {
  const auto memory = Mapping::anonymous(256 * kBlockSize).value();
  std::fill_n(memory.bytes().begin(), memory.bytes().size(), std::byte{1});
  ASSERT_EQ(::mprotect(memory.bytes().data() + 100 * kBlockSize, kBlockSize, PROT_NONE), 0);
  const MemorySource process = MemorySource::of_process(::getpid(), memory.address());
  const std::vector<Range> candidates{blocks(0, 256)};
  const auto result = capture(fs_, store_.layers_dir(), {process, candidates, {}}, *zeros(256 * kBlockSize));
  ASSERT_FALSE(result);
  EXPECT_THAT(result.error().message, HasSubstr("offset " + std::to_string(100 * kBlockSize)));
  EXPECT_THAT(layer_files(), IsEmpty());
}

// What comes before it has been read ahead, and is stored when the error is met.
TEST_F(CaptureTest, AMemoryThatEndsWhileItIsReadAheadIsRefused) {
  constexpr uint64_t kBytes = uint64_t{4} << 20;
  Random random(1);
  Memory memory(kBytes - kBlockSize);
  memory.write(0, random_bytes(random, kBytes - kBlockSize));
  const std::vector<Range> candidates{{0, kBytes}};
  const auto result = capture(fs_, store_.layers_dir(), {memory.source(), candidates, {}}, *zeros(kBytes));
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, Code::kOutOfRange);
  EXPECT_THAT(result.error().message, HasSubstr("read what is captured"));
  EXPECT_THAT(layer_files(), IsEmpty());
}

TEST_F(CaptureTest, MemoryOfAnotherSizeIsRefused) {
  Memory memory(8 * kBlockSize);
  const std::vector<Range> candidates{memory.whole()};
  CaptureSource source{memory.source(), candidates, {}};
  const Bytes other(9 * kBlockSize);
  source.in_place = other;
  EXPECT_EQ(capture(fs_, store_.layers_dir(), source, *zeros(8 * kBlockSize)).error().code, Code::kInvalidArgument);
  EXPECT_THAT(layer_files(), IsEmpty());
}

}  // namespace
}  // namespace stasis::snapshot
