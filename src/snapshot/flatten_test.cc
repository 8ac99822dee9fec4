#include "snapshot/flatten.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "base/memory.h"
#include "base/testing/temp_dir.h"

namespace stasis::snapshot {
namespace {

using Bytes = std::vector<std::byte>;

constexpr uint64_t kSize = 4 * kHugePageSize;

// Of a layer with two huge pages, a gap of a frame, and a frame.
const std::vector<Range> kData{{0, 2 * kHugePageSize}, {2 * kHugePageSize + kFrameSize, kFrameSize}};

std::byte content_of(uint64_t frame) { return std::byte(1 + frame % 255); }

class FlattenTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::vector<Change> changes;
    for (const Range& range : kData) {
      for (uint64_t at = range.offset; at < range.end(); at += kFrameSize) {
        ASSERT_TRUE(writer_->write(at, Bytes(kFrameSize, content_of(at / kFrameSize))));
      }
      changes.push_back({range, false});
    }
    ASSERT_TRUE(writer_->finish());
    space_ =
        AddressSpace::open(fs_, directory_.path(), BlockMap::zeros(kSize).value().merge(id_, changes).value()).value();
  }

  // Into a file; which runs there were, of the right content.
  std::vector<Range> flatten(uint64_t window, uint64_t from = 0) {
    std::vector<Range> runs;
    RateLimit limit;
    Flattener flattener(*space_, limit, window);
    EXPECT_TRUE(flattener.run(from, [&](uint64_t offset, std::span<const std::byte> data) {
      runs.push_back({offset, data.size()});
      for (uint64_t at = 0; at < data.size(); ++at) {
        if (data[at] != content_of((offset + at) / kFrameSize)) return Status(fail(Code::kDataLoss, "other bytes"));
      }
      return fs_.write_at(file_.get(), offset, data);
    }));
    return runs;
  }

  stasis::testing::TempDir directory_;
  FileSystem& fs_ = real_file_system();
  LayerId id_ = LayerId::random();
  std::unique_ptr<LayerWriter> writer_ = LayerWriter::create(fs_, directory_.path(), id_, kSize).value();
  std::shared_ptr<AddressSpace> space_;
  UniqueFd file_ = fs_.create(directory_.path() / "file").value();
};

TEST_F(FlattenTest, AHugePageIsHandedOverAtOnce) {
  EXPECT_EQ(flatten(kHugePageSize), (std::vector<Range>{{0, kHugePageSize}, {kHugePageSize, kHugePageSize}, kData[1]}));
}

TEST_F(FlattenTest, RunsAreCutAtTheWindowAndBeginWhereTheyAreAskedTo) {
  constexpr uint64_t kHalf = kHugePageSize / 2;
  EXPECT_EQ(flatten(kHalf, 2 * kHalf), (std::vector<Range>{{2 * kHalf, kHalf}, {3 * kHalf, kHalf}, kData[1]}));
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

TEST_F(FlattenTest, AMappingTakesAHugePageWithOneEntry) {
  const UniqueFd plain = fs_.create(directory_.path() / "plain").value();
  ASSERT_TRUE(fs_.write_at(plain.get(), 0, Bytes(kHugePageSize, std::byte{1})));
  if (huge_bytes_of_mapping(plain.get(), kHugePageSize) == 0) {
    GTEST_SKIP() << "this file system has no folios so large";
  }
  ASSERT_TRUE(fs_.truncate(file_.get(), kSize));
  flatten(kHugePageSize);
  EXPECT_EQ(huge_bytes_of_mapping(file_.get(), kSize), 2 * kHugePageSize);
}

}  // namespace
}  // namespace stasis::snapshot
