#include "snapshot/joined_writes.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <fstream>
#include <random>

#include "base/file_system.h"
#include "base/memory.h"
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

// What of this process's memory are whole huge pages of files.
uint64_t mapped_huge_bytes() {
  std::ifstream rollup("/proc/self/smaps_rollup");
  std::string word;
  uint64_t kib = 0;
  while (rollup >> word) {
    if (word == "FilePmdMapped:") rollup >> kib;
  }
  return kib << 10;
}

// Maps the file privately, beginning where a huge page may, and reads all of it: how much of it are huge pages.
uint64_t huge_bytes_of_mapping(int fd, uint64_t length) {
  const Mapping room = Mapping::anonymous(length + kHugePageSize).value();
  std::byte* start = room.bytes().data() + (kHugePageSize - room.address() % kHugePageSize) % kHugePageSize;
  const uint64_t before = mapped_huge_bytes();
  if (::mmap(start, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, fd, 0) == MAP_FAILED) return 0;
  for (uint64_t at = 0; at < length; at += 4096) (void)*static_cast<volatile std::byte*>(start + at);
  return mapped_huge_bytes() - before;
}

TEST_F(JoinedWritesTest, AMappingTakesAHugePageWithOneEntry) {
  const UniqueFd plain = fs_.create(directory_.path() / "plain").value();
  ASSERT_TRUE(fs_.write_at(plain.get(), 0, Bytes(kHugePageSize, std::byte{1})));
  if (huge_bytes_of_mapping(plain.get(), kHugePageSize) == 0) {
    GTEST_SKIP() << "this file system has no folios so large";
  }
  write({0, 2 * kHugePageSize});
  write({2 * kHugePageSize + kPiece, kPiece});
  EXPECT_EQ(huge_bytes_of_mapping(file_.get(), kFile), 2 * kHugePageSize);
}

}  // namespace
}  // namespace stasis::snapshot
