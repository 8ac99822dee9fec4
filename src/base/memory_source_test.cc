#include "base/memory_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <type_traits>
#include <vector>

#include "base/file.h"
#include "base/memory.h"
#include "base/poll.h"
#include "base/process.h"
#include "base/testing/faulty_file_system.h"

namespace stasis {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::HasSubstr;

constexpr uint64_t kPage = 4096;
constexpr uint64_t kPages = 64;

static_assert(!std::is_copy_constructible_v<MemorySource> && std::is_nothrow_move_constructible_v<MemorySource>);

// Each page of `memory_`, which is a file, is full of its number. It is read as a file and as memory of a process.
class MemorySourceTest : public ::testing::Test {
 protected:
  MemorySourceTest() {
    for (uint64_t page = 0; page < kPages; ++page) {
      EXPECT_TRUE(fs_.write_at(file_.get(), page * kPage, std::vector<std::byte>(kPage, std::byte(page))));
    }
  }
  MemorySource of_file() const { return MemorySource::of_file(duplicate(file_.get()).value()); }
  MemorySource of_process() const { return MemorySource::of_process(::getpid(), memory_.address()); }
  static void expect_pages(const MemorySource& source, uint64_t first, uint64_t count) {
    std::vector<std::byte> bytes(count * kPage);
    const Status read = source.read(real_file_system(), first * kPage, bytes);
    ASSERT_TRUE(read) << read.error().message;
    for (uint64_t page = 0; page < count; ++page) {
      EXPECT_THAT(std::span(bytes).subspan(page * kPage, kPage), Each(std::byte(first + page)));
    }
  }
  static Error failure(const MemorySource& source, uint64_t first, uint64_t count) {
    std::vector<std::byte> bytes(count * kPage);
    const Status read = source.read(real_file_system(), first * kPage, bytes);
    EXPECT_FALSE(read);
    return read ? Error{} : read.error();
  }

  FileSystem& fs_ = real_file_system();
  const UniqueFd file_ = create_memory_file("memory", kPages* kPage).value();
  const Mapping memory_ = Mapping::shared(file_.get(), kPages* kPage).value();
};

TEST_F(MemorySourceTest, GivesTheBytesAtItsOffsets) {
  for (const MemorySource& source : {of_file(), of_process()}) {
    expect_pages(source, 0, kPages);
    expect_pages(source, 5, 1);
    expect_pages(source, kPages - 1, 1);
  }
}

TEST_F(MemorySourceTest, GivesManyRangesOneBehindTheOther) {
  std::vector<Range> ranges;
  std::vector<std::byte> expected;
  const auto add = [&](uint64_t first, uint64_t count) {
    ranges.push_back({first * kPage, count * kPage});
    for (uint64_t page = first; page < first + count; ++page) expected.insert(expected.end(), kPage, std::byte(page));
  };
  for (uint64_t i = 0; i < 150; ++i) add(i % 50, 1 + i % 4);
  for (const MemorySource& source : {of_file(), of_process()}) {
    std::vector<std::byte> bytes(expected.size());
    const Status read = source.read(fs_, ranges, bytes);
    ASSERT_TRUE(read) << read.error().message;
    EXPECT_TRUE(bytes == expected);
  }
}

TEST_F(MemorySourceTest, AFileIsReadThroughTheFileSystem) {
  testing::FaultyFileSystem faulty;
  std::vector<std::byte> bytes(kPage);
  faulty.fail_at(2, EIO);
  EXPECT_TRUE(of_file().read(faulty, 0, bytes));
  const Status read = of_file().read(faulty, 0, bytes);
  ASSERT_FALSE(read);
  EXPECT_THAT(read.error().message, AllOf(HasSubstr("injected"), HasSubstr("offset 0")));
}

TEST_F(MemorySourceTest, TheEndOfAFileIsAnErrorThatSaysWhere) {
  const Error error = failure(of_file(), kPages - 2, 3);
  EXPECT_EQ(error.code, Code::kOutOfRange);
  EXPECT_THAT(error.message, HasSubstr("ends at " + std::to_string(kPages * kPage)));
}

TEST_F(MemorySourceTest, NothingCannotBeRead) { EXPECT_EQ(failure(MemorySource(), 0, 1).code, Code::kInternal); }

TEST_F(MemorySourceTest, WhatAProcessHasNotIsAnErrorThatSaysWhere) {
  ASSERT_EQ(::mprotect(memory_.bytes().data() + 40 * kPage, kPage, PROT_NONE), 0);
  const Error error = failure(of_process(), 30, 20);
  EXPECT_EQ(error.code, Code::kInternal);
  EXPECT_THAT(error.message, HasSubstr("offset " + std::to_string(40 * kPage)));
  EXPECT_THAT(error.message, HasSubstr("process " + std::to_string(::getpid())));
  expect_pages(of_process(), 30, 10);
  std::vector<std::byte> bytes(4 * kPage);
  const std::vector<Range> ranges{{3 * kPage, kPage}, {39 * kPage, 2 * kPage}, {50 * kPage, kPage}};
  EXPECT_THAT(of_process().read(fs_, ranges, bytes).error().message, HasSubstr("offset " + std::to_string(40 * kPage)));
  expect_pages(of_process(), 41, 20);
}

TEST_F(MemorySourceTest, APageThatItsFileDoesNotGiveIsAnErrorAndNotZeros) {
  ASSERT_TRUE(fs_.truncate(file_.get(), 8 * kPage));
  EXPECT_THAT(failure(of_process(), 5, 5).message, HasSubstr("offset " + std::to_string(8 * kPage)));
  expect_pages(of_process(), 0, 8);
}

TEST_F(MemorySourceTest, AProcessThatHasEndedIsAnError) {
  SpawnOptions options;
  options.argv = {"sleep", "1000"};
  auto process = spawn(options);
  ASSERT_TRUE(process) << process.error().message;
  process->signal(SIGKILL);
  ASSERT_TRUE(wait_readable(process->pidfd(), Deadline::never()));
  const MemorySource source = MemorySource::of_process(process->pid(), memory_.address());
  EXPECT_THAT(failure(source, 0, 1).message, HasSubstr("No such process"));
}

}  // namespace
}  // namespace stasis
