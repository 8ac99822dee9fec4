#include "snapshot/read_ahead.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>

#include "base/testing/sync_points.h"
#include "snapshot/ranges.h"
#include "snapshot/testing/fixtures.h"

namespace stasis::snapshot {
namespace {

using stasis::testing::AtPoint;
using stasis::testing::StopAt;
using testing::blocks;
using testing::Bytes;
using testing::Memory;
using testing::Random;

constexpr uint64_t kChunk = 16 * kBlockSize;
constexpr uint64_t kBytes = 64 * kChunk;

class ReadAheadTest : public ::testing::Test {
 protected:
  void SetUp() override {
    Random random(1);
    memory_.write(0, testing::random_bytes(random, kBytes));
  }
  Memory memory_{kBytes};
  const MemorySource& source_ = memory_.source();
};

TEST_F(ReadAheadTest, AllComesInOrderInTheChunksThatTheRangesHave) {
  Random random(2);
  for (int round = 0; round < 20; ++round) {
    std::vector<Range> ranges;
    for (uint64_t block = 0; block < kBytes / kBlockSize;) {
      const uint64_t count = std::min(testing::pick(random, 1, 40), kBytes / kBlockSize - block);
      if (testing::pick(random, 0, 2) > 0) append_range(ranges, blocks(block, count));
      block += count;
    }
    ReadAhead ahead(real_file_system(), source_, ranges, kChunk);
    const Status all = in_chunks(ranges, kChunk, [&](std::span<const Range> pieces) -> Status {
      const auto chunk = ahead.next();
      EXPECT_TRUE(chunk && *chunk != nullptr);
      EXPECT_EQ((*chunk)->pieces, std::vector<Range>(pieces.begin(), pieces.end()));
      auto bytes = std::span<const std::byte>((*chunk)->bytes);
      for (const Range& piece : pieces) {
        EXPECT_TRUE(std::ranges::equal(bytes.first(piece.length),
                                       std::span(memory_.content).subspan(piece.offset, piece.length)));
        bytes = bytes.subspan(piece.length);
      }
      return {};
    });
    EXPECT_TRUE(all);
    const auto end = ahead.next();
    ASSERT_TRUE(end);
    EXPECT_EQ(*end, nullptr);
  }
}

TEST_F(ReadAheadTest, ItIsSomeChunksAheadAndNoMore) {
  std::promise<void> seventh;
  int read = 0;
  const AtPoint counts("read_ahead.read", [&](void*) {
    if (++read == 7) seventh.set_value();
  });
  const std::vector<Range> ranges{memory_.whole()};
  {
    ReadAhead ahead(real_file_system(), source_, ranges, kChunk);
    seventh.get_future().wait();
  }
  EXPECT_EQ(read, 7) << "one place of eight is the taker's";
}

TEST_F(ReadAheadTest, AnErrorComesBehindWhatWasReadAndStays) {
  const Memory shorter(2 * kChunk + kBlockSize);
  const std::vector<Range> ranges{memory_.whole()};
  ReadAhead ahead(real_file_system(), shorter.source(), ranges, kChunk);
  for (int chunk = 0; chunk < 2; ++chunk) ASSERT_TRUE(ahead.next());
  for (int call = 0; call < 2; ++call) {
    const auto failed = ahead.next();
    ASSERT_FALSE(failed);
    EXPECT_EQ(failed.error().code, Code::kOutOfRange);
  }
}

TEST_F(ReadAheadTest, WhoGoesAwayInTheMiddleOfAReadWaitsForThatReadOnly) {
  const std::vector<Range> ranges{memory_.whole()};
  StopAt reads("read_ahead.read");
  std::optional<ReadAhead> ahead;
  ahead.emplace(real_file_system(), source_, ranges, kChunk);
  ASSERT_TRUE(reads.await());
  const auto going = std::async(std::launch::async, [&] { ahead.reset(); });
  reads.go_on();
  going.wait();
}

}  // namespace
}  // namespace stasis::snapshot
