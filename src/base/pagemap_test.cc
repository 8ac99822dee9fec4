#include "base/pagemap.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <random>
#include <set>

#include "base/memory.h"
#include "base/testing/sync_points.h"
#include "base/userfaultfd.h"

namespace stasis {
namespace {

using stasis::testing::AtPoint;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr uint64_t kPage = 4096;
constexpr uint64_t kPages = 64;

TEST(PagemapTest, OnlyKernelsWithoutTheDefectTellWrittenPages) {
  for (const char* release : {"6.9", "6.9.0-rc7", "6.10.3-amd64", "6.18.5", "7.0.0", "10.1-custom"}) {
    EXPECT_TRUE(tells_written_pages(release)) << release;
  }
  for (const char* release :
       {"6.8.0-45-generic", "6.8.10", "6.7.12", "6.1.0-25-amd64", "5.10.9", "6", "6.", "", "six"}) {
    EXPECT_FALSE(tells_written_pages(release)) << release;
  }
}

// A file of ones, mapped privately: its pages 0 to 31; zeros behind it.
class PrivatePagesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto file = create_memory_file("pagemap-test", 32 * kPage);
    ASSERT_TRUE(file);
    const std::vector<std::byte> ones(32 * kPage, std::byte{1});
    ASSERT_TRUE(real_file_system().write_at(file->get(), 0, ones));
    auto memory = Mapping::anonymous(kPages * kPage);
    ASSERT_TRUE(memory);
    memory_ = std::move(*memory);
    ASSERT_EQ(::madvise(memory_.bytes().data(), kPages * kPage, MADV_NOHUGEPAGE), 0);
    ASSERT_NE(
        ::mmap(memory_.bytes().data(), 32 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, file->get(), 0),
        MAP_FAILED);
    auto pagemap = real_file_system().open_read("/proc/self/pagemap");
    ASSERT_TRUE(pagemap);
    pagemap_ = std::move(*pagemap);
  }
  std::byte read(uint64_t page) const { return *static_cast<volatile std::byte*>(&memory_.bytes()[page * kPage + 7]); }
  void write(uint64_t page, int value) { memory_.bytes()[page * kPage + 7] = std::byte(value); }
  Range all() const { return {memory_.address(), kPages * kPage}; }
  std::vector<Range> relative(const Result<std::vector<Range>>& found) const {
    EXPECT_TRUE(found) << found.error().message;
    std::vector<Range> pages = found.value_or(std::vector<Range>{});
    for (Range& part : pages) part = {(part.offset - memory_.address()) / kPage, part.length / kPage};
    return pages;
  }
  std::vector<Range> scanned() const { return relative(scan_private_pages(pagemap_.get(), all())); }
  std::vector<Range> from_bits() const { return relative(read_private_pages(pagemap_.get(), all())); }

  Mapping memory_;
  UniqueFd pagemap_;
};

TEST_F(PrivatePagesTest, WhatIsOnlyReadStaysTheFiles) {
  for (uint64_t page = 0; page < 32; ++page) EXPECT_EQ(read(page), std::byte{1});
  EXPECT_THAT(scanned(), IsEmpty());
  EXPECT_THAT(from_bits(), IsEmpty());
  EXPECT_EQ(present_bytes(pagemap_.get(), all()).value_or(0), 32 * kPage);
}

TEST_F(PrivatePagesTest, WhatIsWrittenIsTheProcesss) {
  write(3, 2);
  write(4, 1);  // the same content again
  write(31, 0);
  write(32, 2);
  write(63, 2);
  const auto expected = ElementsAre(Range{3, 2}, Range{31, 2}, Range{63, 1});
  EXPECT_THAT(scanned(), expected);
  EXPECT_THAT(from_bits(), expected);
}

// However the call is refused.
TEST_F(PrivatePagesTest, WhereTheKernelHasNoScanTheBitsTellTheSame) {
  for (uint64_t page = 0; page < 16; ++page) EXPECT_EQ(read(page), std::byte{1});
  write(3, 2);
  write(4, 1);
  write(31, 0);
  write(63, 2);
  for (const int error : {ENOTTY, EINVAL, EPERM}) {
    int refused = 0;
    const AtPoint old("pagemap.scan", AtPoint::on<int>([&](int& answer) {
                        answer = error;
                        ++refused;
                      }));
    EXPECT_THAT(scanned(), ElementsAre(Range{3, 2}, Range{31, 1}, Range{63, 1})) << error;
    EXPECT_EQ(present_bytes(pagemap_.get(), all()).value_or(0), 18 * kPage) << error;
    EXPECT_EQ(refused, 2) << "neither was told by the scan";
    EXPECT_EQ(scan_absent_pages(pagemap_.get(), all()).error().code, Code::kUnimplemented);
    EXPECT_FALSE(scan_written_pages(pagemap_.get(), all(), false));
    EXPECT_FALSE(scan_written_there(pagemap_.get(), all()));
  }
}

// Which is no reason to believe that nothing was written.
TEST_F(PrivatePagesTest, AScanThatFailsIsAnError) {
  write(3, 2);
  const AtPoint fails("pagemap.scan", AtPoint::on<int>([](int& answer) { answer = ENOMEM; }));
  EXPECT_FALSE(scan_private_pages(pagemap_.get(), all()));
  EXPECT_FALSE(present_bytes(pagemap_.get(), all()));
}

TEST_F(PrivatePagesTest, ZerosThatWereOnlyReadAreNobodys) {
  EXPECT_EQ(read(40), std::byte{0});
  EXPECT_THAT(relative(read_private_pages(pagemap_.get(), all())),
              ::testing::AnyOf(IsEmpty(), ElementsAre(Range{40, 1})));
  const bool has_scan = scan_written_pages(pagemap_.get(), all(), false).has_value();
  EXPECT_EQ(scanned().empty(), has_scan);
}

TEST_F(PrivatePagesTest, MoreRunsThanOneCallTells) {
  auto large = Mapping::anonymous(4096 * kPage);
  ASSERT_TRUE(large);
  ASSERT_EQ(::madvise(large->bytes().data(), large->bytes().size(), MADV_NOHUGEPAGE), 0);
  for (uint64_t page = 0; page < 4096; page += 2) large->bytes()[page * kPage] = std::byte{1};
  const Range range{large->address(), large->bytes().size()};
  const auto scanned = scan_private_pages(pagemap_.get(), range);
  ASSERT_TRUE(scanned);
  EXPECT_EQ(scanned->size(), 2048u);
  EXPECT_EQ(*scanned, *read_private_pages(pagemap_.get(), range));
}

TEST_F(PrivatePagesTest, MoreMemoryThanOneCallWalks) {
  constexpr uint64_t kMany = 100'000;  // 390 MiB
  auto file = create_memory_file("pagemap-test", kMany * kPage);
  ASSERT_TRUE(file);
  auto memory = Mapping::shared(file->get(), kMany * kPage);
  ASSERT_TRUE(memory);
  auto uffd = UserFaultFd::create(true);
  if (!uffd) GTEST_SKIP() << uffd.error().message;
  const Range range{memory->address(), kMany * kPage};
  ASSERT_TRUE(uffd->register_write_protect(range));
  const auto all = scan_written_pages(pagemap_.get(), range, true);
  ASSERT_TRUE(all);
  EXPECT_THAT(*all, ElementsAre(range)) << "what was never protected, as one";
  for (const uint64_t seed : {1u, 2u}) {
    std::mt19937_64 random(seed);
    std::set<uint64_t> written{32'767, 32'768, 65'536, kMany - 1};  // the ends of 128 MiB
    while (written.size() < 3000) written.insert(random() % kMany);
    std::vector<Range> expected;
    for (const uint64_t page : written) {
      memory->bytes()[page * kPage + random() % kPage] = std::byte{1};
      append_range(expected, {memory->address() + page * kPage, kPage});
    }
    EXPECT_EQ(scan_written_pages(pagemap_.get(), range, true).value_or(std::vector<Range>{}), expected);
    EXPECT_THAT(scan_written_pages(pagemap_.get(), range, true).value_or(*all), IsEmpty());
  }
}

// Pages of a private mapping in every state, by hand and at random: absent, read, written. A page that is not there
// is never told, however it is looked at.
TEST_F(PrivatePagesTest, WhatIsWrittenThere) {
  constexpr uint64_t kMany = 100'000;  // 390 MiB: four calls
  auto file = create_memory_file("pagemap-test", kMany * kPage);
  ASSERT_TRUE(file);
  auto memory = Mapping::anonymous(kMany * kPage);
  ASSERT_TRUE(memory);
  std::byte* const bytes = memory->bytes().data();
  ASSERT_EQ(::madvise(bytes, kMany * kPage, MADV_NOHUGEPAGE), 0);
  // The first half, so that both kinds are in one call.
  ASSERT_NE(::mmap(bytes, kMany / 2 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, file->get(), 0),
            MAP_FAILED);
  auto uffd = UserFaultFd::create(true);
  if (!uffd) GTEST_SKIP() << uffd.error().message;
  const Range range{memory->address(), kMany * kPage};
  EXPECT_EQ(scan_written_there(pagemap_.get(), range).error().code, Code::kUnimplemented) << "nobody protects it";
  ASSERT_TRUE(uffd->register_write_protect(range));
  EXPECT_THAT(scan_written_there(pagemap_.get(), range).value_or(std::vector{range}), IsEmpty());
  const auto page_at = [&](uint64_t page) -> volatile std::byte& { return bytes[page * kPage]; };
  std::mt19937_64 random(1);
  unsigned sum = 0;  // of what is read
  // How many are touched: fewer and more than one answer holds.
  for (const uint64_t count : {1u, 100u, 3000u, 60'000u}) {
    std::set<uint64_t> touched{32'767, 32'768, kMany / 2, kMany - 1};
    while (touched.size() < count) touched.insert(random() % kMany);
    const auto absent = [&](uint64_t page) {
      uint64_t entry = 0;
      EXPECT_TRUE(real_file_system().read_at(pagemap_.get(), (memory->address() / kPage + page) * sizeof entry,
                                             std::as_writable_bytes(std::span(&entry, 1))));
      return entry == 0;
    };
    std::vector<Range> expected;
    for (const uint64_t page : touched) {
      const bool reads = random() % 4 == 0;
      const bool tells = !reads || absent(page);  // one that was only read, and is protected already, is not told
      if (reads) {
        sum += std::to_integer<unsigned>(page_at(page));
      } else {
        page_at(page) = std::byte{1};
      }
      if (tells) append_range(expected, {memory->address() + page * kPage, kPage});
    }
    EXPECT_EQ(scan_written_there(pagemap_.get(), range).value_or(std::vector<Range>{}), expected) << count;
    EXPECT_THAT(scan_written_there(pagemap_.get(), range).value_or(std::vector{range}), IsEmpty()) << count;
  }
  EXPECT_LE(sum, 400u);
}

TEST(JoinForWalkTest, WhatIsNear) {
  constexpr uint64_t kMiB = 1 << 20;
  EXPECT_THAT(join_for_walk({}), IsEmpty());
  EXPECT_THAT(join_for_walk({{0, kPage}, {kPage + 2 * kMiB, kPage}, {9 * kMiB, kPage}}),
              ElementsAre(Range{0, 2 * kMiB + 2 * kPage}, Range{9 * kMiB, kPage}));
}

TEST_F(PrivatePagesTest, AProcessThatHasGoneIsAnError) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::pause();
    ::_exit(0);
  }
  auto pagemap = real_file_system().open_read("/proc/" + std::to_string(child) + "/pagemap");
  ASSERT_TRUE(pagemap);
  ::kill(child, SIGKILL);
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  EXPECT_FALSE(read_private_pages(pagemap->get(), all()));
  const auto scanned = scan_private_pages(pagemap->get(), all());
  EXPECT_FALSE(scanned) << "and not: nothing was written";
}

}  // namespace
}  // namespace stasis
