#include "snapshot/joined_writes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "base/testing/huge_folios.h"
#include "base/testing/temp_dir.h"

namespace stasis::snapshot {
namespace {

using Bytes = std::vector<std::byte>;

constexpr uint64_t kPiece = 64 << 10;
constexpr uint64_t kFile = 4 * kHugePageSize;

class JoinedWritesTest : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(fs_.truncate(file_.get(), kFile)); }
  // Piece by piece.
  void write(Range range) {
    for (uint64_t at = range.offset; at < range.end(); at += kPiece) {
      ASSERT_TRUE(writes_.write(at, Bytes(std::min(kPiece, range.end() - at), std::byte{1})));
    }
  }

  stasis::testing::TempDir directory_;
  FileSystem& fs_ = real_file_system();
  UniqueFd file_ = fs_.create(directory_.path() / "file").value();
  std::vector<Range> written_;
  bool full_ = false;
  JoinedWrites writes_{[this](uint64_t offset, std::span<const std::byte> data) -> Status {
    if (full_) return fail(Code::kResourceExhausted, "no space");
    written_.push_back({offset, data.size()});
    return fs_.write_at(file_.get(), offset, data);
  }};
};

TEST_F(JoinedWritesTest, AHugePageIsWrittenAtOnce) {
  write({0, 2 * kHugePageSize});
  EXPECT_EQ(written_, (std::vector<Range>{{0, kHugePageSize}, {kHugePageSize, kHugePageSize}}));
}

TEST_F(JoinedWritesTest, WhatIsLongerIsCutAtHugePagesAndNotCopied) {
  ASSERT_TRUE(writes_.write(kPiece, Bytes(2 * kHugePageSize)));
  EXPECT_EQ(written_, (std::vector<Range>{
                          {kPiece, kHugePageSize - kPiece},
                          {kHugePageSize, kHugePageSize},
                      }))
      << "the end waits for what may follow";
  ASSERT_TRUE(writes_.flush());
  EXPECT_EQ(written_.back(), (Range{2 * kHugePageSize, kPiece}));
}

TEST_F(JoinedWritesTest, WhatCannotBecomeAHugePageIsWrittenAsItComes) {
  write({kPiece, 3 * kPiece});
  EXPECT_EQ(written_, (std::vector<Range>{{kPiece, kPiece}, {2 * kPiece, kPiece}, {3 * kPiece, kPiece}}));
}

TEST_F(JoinedWritesTest, AGapEndsWhatWaits) {
  write({0, 2 * kPiece});
  EXPECT_TRUE(written_.empty());
  write({3 * kPiece, kPiece});
  EXPECT_EQ(written_, (std::vector<Range>{{0, 2 * kPiece}, {3 * kPiece, kPiece}}));
}

TEST_F(JoinedWritesTest, AfterAFlushTheRestOfThePageIsWrittenAsItComes) {
  write({0, kPiece});
  ASSERT_TRUE(writes_.flush());
  ASSERT_TRUE(writes_.flush()) << "nothing is left";
  write({kPiece, kPiece});
  EXPECT_EQ(written_, (std::vector<Range>{{0, kPiece}, {kPiece, kPiece}}));
}

TEST_F(JoinedWritesTest, AFailureIsToldByTheWriteOrTheFlushThatMeetsIt) {
  write({0, kHugePageSize - kPiece});
  full_ = true;
  EXPECT_EQ(writes_.write(kHugePageSize - kPiece, Bytes(kPiece)).error().code, Code::kResourceExhausted);
  EXPECT_EQ(writes_.flush().error().code, Code::kResourceExhausted) << "it still waits";
}

TEST_F(JoinedWritesTest, WhateverTheOrderTheFileHasWhatWasWritten) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 30; ++round) {
    Bytes expected(kFile);
    ASSERT_TRUE(fs_.write_at(file_.get(), 0, expected));
    for (uint64_t at = 0; at < kFile;) {
      if (random() % 8 == 0) at += random() % 300 * 4096;
      if (at >= kFile) break;
      const uint64_t most = random() % 4 == 0 ? kFile : kPiece;
      Bytes bytes(std::min(kFile - at, (1 + random() % (most / 4096)) * 4096));
      std::ranges::generate(bytes, [&] { return std::byte(random()); });
      ASSERT_TRUE(writes_.write(at, bytes));
      std::ranges::copy(bytes, expected.begin() + static_cast<ptrdiff_t>(at));
      at += bytes.size();
    }
    ASSERT_TRUE(writes_.flush());
    Bytes found(kFile);
    ASSERT_EQ(fs_.read_at(file_.get(), 0, found), kFile);
    ASSERT_TRUE(found == expected) << "round " << round;
  }
}

TEST_F(JoinedWritesTest, AMappingTakesAHugePageWithOneEntry) {
  if (!stasis::testing::has_huge_folios(directory_.path())) GTEST_SKIP() << "this file system has no folios so large";
  write({0, 2 * kHugePageSize});
  write({2 * kHugePageSize + kPiece, kPiece});
  EXPECT_EQ(stasis::testing::huge_bytes_of_mapping(file_.get(), kFile), 2 * kHugePageSize);
}

}  // namespace
}  // namespace stasis::snapshot
