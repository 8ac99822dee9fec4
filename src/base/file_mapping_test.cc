#include "base/file_mapping.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <set>
#include <thread>
#include <vector>

#include "base/file_system.h"
#include "base/testing/temp_dir.h"

namespace stasis {
namespace {

constexpr size_t kPage = 4096;

class FileMappingTest : public ::testing::Test {
 protected:
  FileMappingTest() { EXPECT_TRUE(fs_.write_at(file_.get(), 0, std::vector<std::byte>(4 * kPage, std::byte{7}))); }
  FileSystem& fs_ = real_file_system();
  testing::TempDir dir_;
  const UniqueFd file_ = fs_.create(dir_.path() / "file").value();
};

TEST_F(FileMappingTest, ShowsTheFile) {
  const FileMapping mapping = fs_.map(file_.get(), 4 * kPage).value();
  EXPECT_EQ(mapping.bytes().size(), 4 * kPage);
  EXPECT_EQ(mapping.bytes()[4 * kPage - 1], std::byte{7});
  EXPECT_TRUE(mapping.intact());
  EXPECT_FALSE(FileMapping().intact());
}

TEST_F(FileMappingTest, APageThatIsGoneReadsAsZerosAndIsTold) {
  const FileMapping mapping = fs_.map(file_.get(), 4 * kPage).value();
  const FileMapping other = fs_.map(file_.get(), kPage).value();
  ASSERT_TRUE(fs_.truncate(file_.get(), kPage));
  EXPECT_EQ(mapping.bytes()[0], std::byte{7});
  EXPECT_TRUE(mapping.intact());
  EXPECT_EQ(mapping.bytes()[2 * kPage + 5], std::byte{0});
  EXPECT_FALSE(mapping.intact());
  EXPECT_EQ(mapping.bytes()[0], std::byte{7}) << "only that page is replaced";
  EXPECT_TRUE(other.intact());
}

TEST_F(FileMappingTest, WhatASystemCallReadsIsNeverReplaced) {
  const FileMapping mapping = fs_.map(file_.get(), 4 * kPage).value();
  ASSERT_TRUE(fs_.truncate(file_.get(), kPage));
  ASSERT_EQ(mapping.bytes()[2 * kPage], std::byte{0}) << "zeros, which the file does not hold";
  const UniqueFd out = fs_.create(dir_.path() / "out").value();
  const auto page = [&](size_t number) { return mapping.for_kernel().subspan(number * kPage, kPage); };
  ASSERT_TRUE(fs_.write_at(out.get(), 0, page(0)));
  const UniqueFd copy = fs_.open_read(dir_.path() / "out").value();
  EXPECT_EQ(fs_.map(copy.get(), kPage)->bytes()[kPage - 1], std::byte{7});
  EXPECT_EQ(::pwrite(out.get(), page(2).data(), kPage, 0), -1);
  EXPECT_EQ(errno, EFAULT);
}

TEST_F(FileMappingTest, EveryThreadIsToldOfWhatItReads) {
  const FileMapping mapping = fs_.map(file_.get(), 4 * kPage).value();
  ASSERT_TRUE(fs_.truncate(file_.get(), 0));
  std::vector<std::thread> threads;
  threads.reserve(4);
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (size_t page = 0; page < 4; ++page) {
        EXPECT_EQ(mapping.bytes()[page * kPage], std::byte{0});
        EXPECT_FALSE(mapping.intact());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_F(FileMappingTest, PlacesAreGivenBack) {
  for (int i = 0; i < 5000; ++i) ASSERT_TRUE(FileMapping::map(file_.get(), kPage)) << i;
  std::vector<FileMapping> held;
  Result<FileMapping> last = FileMapping::map(file_.get(), kPage);
  while (last && held.size() < 5000) {
    held.push_back(std::move(*last));
    last = FileMapping::map(file_.get(), kPage);
  }
  EXPECT_EQ(held.size(), 4096U);
  EXPECT_EQ(last.error().code, Code::kResourceExhausted);
  held.clear();
  EXPECT_TRUE(FileMapping::map(file_.get(), kPage));
}

TEST_F(FileMappingTest, TellsWhichPagesAreInMemoryAndFillsNoHole) {
  const UniqueFd sparse = create_memory_file("sparse", 80 * kPage).value();
  for (const size_t page : {0, 2, 70}) {
    ASSERT_TRUE(fs_.write_at(sparse.get(), page * kPage, std::vector<std::byte>(kPage, std::byte{7})));
  }
  const FileMapping mapping = fs_.map(sparse.get(), 80 * kPage).value();
  EXPECT_EQ(mapping.resident_pages({0, 16 * kPage}), 0b101U);
  EXPECT_EQ(mapping.resident_pages({16 * kPage, 64 * kPage}), uint64_t{1} << 54);
  EXPECT_EQ(mapping.resident_pages({0, 65 * kPage}), 0U) << "more than it can tell";
  EXPECT_EQ(fs_.data_ranges(sparse.get())->size(), 3U);
}

// Bits 12 to 19 of their addresses: what the first cache of AMD's processors chooses by.
TEST_F(FileMappingTest, LargeFilesOfOneSizeDoNotLieAtLikeAddresses) {
  constexpr uint64_t kSize = uint64_t{256} << 20;
  const UniqueFd large = create_memory_file("large", kSize).value();
  std::vector<FileMapping> mappings;
  std::set<uint64_t> places;
  for (int i = 0; i < 16; ++i) {
    mappings.push_back(fs_.map(large.get(), kSize).value());
    EXPECT_EQ(mappings.back().bytes().size(), kSize);
    places.insert(reinterpret_cast<uint64_t>(mappings.back().bytes().data()) >> 12 & 0xff);
  }
  EXPECT_EQ(places.size(), 16U);
  EXPECT_FALSE(fs_.map(-1, kSize));
}

using FileMappingDeathTest = FileMappingTest;

TEST_F(FileMappingDeathTest, OtherBusErrorsStillEndTheProcess) {
  const FileMapping guarded = fs_.map(file_.get(), 4 * kPage).value();
  const Mapping plain = Mapping::shared_read_only(file_.get(), 4 * kPage).value();
  ASSERT_TRUE(fs_.truncate(file_.get(), 0));
  EXPECT_EXIT((void)*const_cast<volatile std::byte*>(plain.bytes().data()), ::testing::KilledBySignal(SIGBUS), "");
  EXPECT_EXIT(::raise(SIGBUS), ::testing::KilledBySignal(SIGBUS), "");
}

}  // namespace
}  // namespace stasis
