// Guests of 2 MiB pages, from the host's pool of huge pages; and what zeros cost.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <future>
#include <thread>

#include "base/testing/temp_dir.h"
#include "pager/page_server.h"
#include "pager/testing/huge_pages.h"
#include "pager/testing/vmm_process.h"

namespace stasis::pager {
namespace {

using snapshot::kBlockSize;
using ::testing::HasSubstr;
using testing::HugePagePool;
using ::testing::Optional;
using testing::VmmProcess;
using testing::VmmShape;

constexpr uint64_t kHuge = 2 << 20;
constexpr uint64_t kBlocks = kHuge / kBlockSize;  // of one huge page

// A page server in the test and a VMM in a process of its own.
class ServedTest : public ::testing::Test {
 protected:
  void serve(VmmShape shape, PageServerOptions options = {}) {
    vmm_ = VmmProcess::start(shape);
    ASSERT_NE(vmm_, nullptr);
    options.on_failure = [this](const Error& error) { failure_.set_value(error); };
    auto server = PageServer::start(dir_.path() / "uffd.sock", memory_, std::move(options));
    ASSERT_TRUE(server) << server.error().message;
    server_ = std::move(*server);
    EXPECT_TRUE(server_->expect_peer(vmm_->pid()));
    ASSERT_TRUE(vmm_->wait(vmm_->connect(dir_.path() / "uffd.sock"))->ok);
    ASSERT_TRUE(server_->await_handshake(Deadline::after(Milliseconds(20'000))));
  }
  void TearDown() override {
    if (vmm_) vmm_->kill();  // it may wait for a page that nobody will bring
    server_.reset();
  }

  stasis::testing::TempDir dir_;
  std::shared_ptr<const snapshot::AddressSpace> memory_;
  std::promise<Error> failure_;
  std::unique_ptr<VmmProcess> vmm_;
  std::unique_ptr<PageServer> server_;
};

class HugePagesTest : public ServedTest, public ::testing::WithParamInterface<bool> {
 protected:
  static constexpr uint64_t kPages = 6;

  // Block by block: pages 0 and 5 are full, 1 is zeros, 2 begins in the middle of an extent of zeros, 3 has two
  // blocks, at its edges, and 4 is full but for one block.
  static bool has_data(uint64_t block) {
    const uint64_t in_page = block % kBlocks;
    switch (block / kBlocks) {
      case 1:
        return false;
      case 2:
        return in_page >= kBlocks / 2;
      case 3:
        return in_page == 0 || in_page == kBlocks - 1;
      case 4:
        return in_page != 77;
      default:
        return true;
    }
  }
  static std::byte value_of(uint64_t block) { return has_data(block) ? std::byte(block % 251 + 1) : std::byte{0}; }
  static std::vector<std::byte> expected(uint64_t page) {
    std::vector<std::byte> bytes(kHuge);
    for (uint64_t block = 0; block < kBlocks; ++block) {
      std::fill_n(bytes.begin() + static_cast<long>(block * kBlockSize), kBlockSize, value_of(page * kBlocks + block));
    }
    return bytes;
  }

  void SetUp() override {
    FileSystem& fs = real_file_system();
    const auto id = snapshot::LayerId::random();
    auto writer = snapshot::LayerWriter::create(fs, dir_.path(), id, kPages * kHuge);
    ASSERT_TRUE(writer);
    std::vector<Range> runs;
    for (uint64_t block = 0; block < kPages * kBlocks; ++block) {
      if (!has_data(block)) continue;
      ASSERT_TRUE((*writer)->write(block * kBlockSize, std::vector<std::byte>(kBlockSize, value_of(block))));
      append_range(runs, {block * kBlockSize, kBlockSize});
    }
    ASSERT_TRUE((*writer)->finish());
    std::vector<snapshot::Change> changes;
    changes.reserve(runs.size());
    for (const Range& run : runs) changes.push_back({run, false});
    auto map = snapshot::BlockMap::zeros(kPages * kHuge)->merge(id, changes);
    ASSERT_TRUE(map);
    memory_ = snapshot::AddressSpace::open(fs, dir_.path(), std::move(*map)).value();
  }
  void serve(PageServerOptions options = {}) {
    ServedTest::serve({.pages = kPages, .page_size = kHuge, .shared = GetParam(), .first_half = 2}, std::move(options));
  }
  void expect_page(uint64_t page) {
    ASSERT_THAT(vmm_->read_now(page), Optional(value_of(page * kBlocks)));
    EXPECT_TRUE(vmm_->content(page) == expected(page)) << "page " << page;
  }
  // Counted a moment after the guest goes on.
  void await_pages(uint64_t blocks) {
    const auto all = [&] {
      const PageServerStats stats = server_->stats();
      return stats.pages_by_fault + stats.pages_around + stats.pages_prefetched + stats.pages_zero;
    };
    const Deadline deadline = Deadline::after(Milliseconds(20'000));
    while (all() < blocks && !deadline.passed()) std::this_thread::yield();
    EXPECT_EQ(all(), blocks);
  }
};

#define HUGE_PAGES(count)   \
  HugePagePool pool(count); \
  if (pool.free() != (count)) GTEST_SKIP() << "this host gives " << pool.free() << " huge pages of " << (count)

INSTANTIATE_TEST_SUITE_P(Memory, HugePagesTest, ::testing::Bool(),
                         [](const auto& memory) { return memory.param ? "memfd" : "anonymous"; });

TEST_P(HugePagesTest, EveryPageComesWhole) {
  HUGE_PAGES(kPages);
  serve();
  for (const uint64_t page : {3, 0, 1, 5, 2, 4}) expect_page(page);
  await_pages(kPages * kBlocks);
  EXPECT_EQ(server_->stats().faults, kPages);
  EXPECT_EQ(server_->stats().pages_zero, kBlocks) << "the page that is all zeros";
}

TEST_P(HugePagesTest, WhatIsExpectedComesInWholePages) {
  HUGE_PAGES(kPages);
  PageServerOptions options;
  options.prefetch = {{70 * kBlockSize, kBlockSize}, {2 * kHuge - kBlockSize, 2 * kBlockSize}, {3 * kHuge, kHuge}};
  serve(std::move(options));
  await_pages(4 * kBlocks);
  for (const uint64_t page : {0, 1, 2, 3}) expect_page(page);
  EXPECT_EQ(server_->stats().faults, 0U);
}

TEST_P(HugePagesTest, WhatIsGivenBackIsZeros) {
  HUGE_PAGES(kPages);
  serve();
  expect_page(0);
  ASSERT_TRUE(vmm_->wait(vmm_->give_back(0, 1))->ok);
  ASSERT_TRUE(vmm_->wait(vmm_->give_back(4, 1))->ok);
  for (const uint64_t page : {0, 4}) {
    ASSERT_THAT(vmm_->read_now(page), Optional(std::byte{0}));
    EXPECT_TRUE(vmm_->content(page) == std::vector<std::byte>(kHuge)) << page;
  }
  EXPECT_THAT(server_->removed(), ::testing::ElementsAre(Range{0, kHuge}, Range{4 * kHuge, kHuge}));
  expect_page(5);
}

TEST_P(HugePagesTest, AnEmptyPoolEndsTheSandboxWithTheReason) {
  HUGE_PAGES(2);
  serve();
  expect_page(0);
  expect_page(1);
  (void)vmm_->read(2);
  auto told = failure_.get_future();
  ASSERT_EQ(told.wait_for(Milliseconds(20'000)), std::future_status::ready);
  const Error error = told.get();
  EXPECT_EQ(error.code, Code::kResourceExhausted);
  EXPECT_THAT(error.message, HasSubstr("install page at offset 4194304 of guest memory"));
  EXPECT_THAT(error.remedy, HasSubstr("vm.nr_hugepages"));
}

TEST_P(HugePagesTest, APoolThatRunsEmptyUnderThePrefetchEndsNothingAndLeavesNoZeros) {
  HUGE_PAGES(2);
  PageServerOptions options;
  options.prefetch = {{0, kPages * kHuge}};
  serve(std::move(options));
  await_pages(2 * kBlocks);
  expect_page(0);
  expect_page(1);
  while (server_->activity().prefetch_left > 0) std::this_thread::yield();
  pool.add(kPages - 2);
  if (pool.free() != kPages - 2) GTEST_SKIP() << "this host gives " << pool.free() << " huge pages more";
  for (uint64_t page = 2; page < kPages; ++page) expect_page(page);
  server_.reset();
  EXPECT_EQ(failure_.get_future().wait_for(Milliseconds(0)), std::future_status::timeout);
}

// Private memory, as Firecracker has it: a page of zeros that is only read stays everybody's.
class ZeroPagesTest : public ServedTest {};

TEST_F(ZeroPagesTest, FiftyThousandThatAreReadCostTheGuestNothing) {
  constexpr uint64_t kZeros = 50'000;
  memory_ = snapshot::AddressSpace::open(real_file_system(), dir_.path(),
                                         snapshot::BlockMap::zeros(kZeros * kBlockSize).value())
                .value();
  serve({.pages = kZeros});
  const uint64_t before = vmm_->own_bytes();
  ASSERT_GT(before, 0U);
  const auto read = vmm_->wait(vmm_->read_all(0, kZeros));
  ASSERT_TRUE(read);
  EXPECT_EQ(read->value, testing::hash_of(std::vector<std::byte>(kZeros)));
  // They would be 195 MiB. What is left is the stack of the thread that has read them.
  EXPECT_LT(vmm_->own_bytes(), before + (uint64_t{1} << 20));
  EXPECT_LT(server_->stats().faults, kZeros / 256) << "in large pieces";
  ASSERT_TRUE(vmm_->wait(vmm_->write(40'000, std::byte{9}))->ok);
  EXPECT_THAT(vmm_->read_now(40'000), Optional(std::byte{9}));
  EXPECT_THAT(vmm_->read_now(40'001), Optional(std::byte{0}));
}

}  // namespace
}  // namespace stasis::pager
