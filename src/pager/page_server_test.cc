// The page server and a VMM: which pages come, and when.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <thread>
#include <vector>

#include "base/pagemap.h"
#include "pager/fault_window.h"
#include "pager/testing/vmm_thread.h"
#include "snapshot/testing/fixtures.h"

namespace stasis::pager {
namespace {

using snapshot::kBlockSize;
using testing::content_of;
using ::testing::ElementsAre;
using testing::FakeVmm;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::kPages;
using testing::kSize;
using testing::PageServerTest;

TEST_F(PageServerTest, EveryPageHasItsContentAndNeighboursComeAlong) {
  start_server();
  FakeVmm vmm;
  vmm.set_up();
  EXPECT_TRUE(server_->expect_peer(::getpid()));
  EXPECT_EQ(server_->await_handshake(Deadline::after(Milliseconds(1))).error().code, Code::kDeadlineExceeded);
  vmm.hand_over(socket_path());
  EXPECT_TRUE(server_->await_handshake(Deadline::after(Milliseconds(5'000))));
  for (uint64_t page = 0; page < kPages; ++page) ASSERT_EQ(vmm.touch(page), content_of(page)) << page;
  // The last fault's neighbours may still be on their way: they come after the page that was waited for.
  PageServerStats stats = server_->stats();
  while (stats.pages_by_fault + stats.pages_around < 156) stats = server_->stats();
  EXPECT_EQ(stats.total_pages, kPages);
  EXPECT_EQ(stats.pages_by_fault + stats.pages_around, 156U);
  EXPECT_EQ(stats.pages_zero, 100U);
  // Read in order, the window grows from 16 to 64 pages (of zeros further) and stops at the edges of extents and
  // regions: faults on pages 0, 16, 48, 100, 128, 200.
  EXPECT_EQ(stats.faults, 6U);
}

TEST_F(PageServerTest, APartOfMemoryIsServedAndNothingElse) {
  const std::vector<Range> served{{40 * kBlockSize, 80 * kBlockSize}, {210 * kBlockSize, 10 * kBlockSize}};
  PageServerOptions options;
  options.served = served;
  options.prefetch = {{0, 50 * kBlockSize}, {205 * kBlockSize, 10 * kBlockSize}};
  options.load_bytes_per_second = uint64_t{1} << 30;
  start_server(std::move(options));
  FakeVmm vmm;
  vmm.set_up_but_for_the_rest(served);
  EXPECT_TRUE(server_->expect_peer(::getpid()));
  vmm.connect(socket_path());
  auto regions = nlohmann::json::array();
  for (const Range& range : served) {
    regions.push_back(FakeVmm::region(vmm.memory.address() + range.offset, range.length, range.offset));
  }
  vmm.send(regions.dump());
  EXPECT_EQ(vmm.touch(115), content_of(115)) << "zeros, with their neighbours";
  while (server_->load().state == LoadState::kLoading) std::this_thread::yield();
  EXPECT_EQ(server_->load().state, LoadState::kComplete);
  EXPECT_EQ(server_->activity().load_left, 0U);
  const PageServerStats stats = server_->stats();
  EXPECT_EQ(stats.pages_prefetched, 15U);
  EXPECT_EQ(stats.pages_loaded, 55U);
  for (uint64_t page = 0; page < kPages; ++page) {
    const bool is_served = (page >= 40 && page < 120) || (page >= 210 && page < 220);
    ASSERT_EQ(vmm.touch(page), is_served ? content_of(page) : std::byte{0xee}) << page;
  }
}

TEST(FaultWindowTest, GrowsOnReadingOnAndShrinksOnJumpingAbout) {
  FaultWindow window;
  for (uint64_t jump = 0; jump < 7; ++jump) EXPECT_EQ(window.around(1000 * jump + 20, false).length, 16U);
  EXPECT_EQ(window.around(100, false), (Range{96, 8}));  // the eighth: less from now on
  EXPECT_EQ(window.around(100, true), (Range{100, 16}));
  EXPECT_EQ(window.around(116, true), (Range{116, 32}));
  for (uint64_t jump = 0; jump < 7; ++jump) EXPECT_EQ(window.around(1000 * jump + 20, false).length, 32U);
  EXPECT_EQ(window.around(148, true), (Range{148, 64}));
  EXPECT_EQ(window.around(212, true), (Range{212, 64}));
  EXPECT_EQ(window.around(276, true, FaultWindow::kMaxZeros), (Range{276, 128}));
  EXPECT_EQ(window.around(404, true, FaultWindow::kMaxZeros), (Range{404, 256}));
  EXPECT_EQ(window.around(660, true), (Range{660, 64})) << "data is not brought in like zeros";
  for (int jump = 0; jump < 8 * 6; ++jump) (void)window.around(3, false);
  EXPECT_EQ(window.around(3, false), (Range{3, 1}));
  for (int jump = 0; jump < 8; ++jump) EXPECT_EQ(window.around(3, false), (Range{3, 1}));
}

TEST_F(PageServerTest, WhatIsExpectedComesWithoutAFault) {
  PageServerOptions options;
  // Two extents and an edge between regions (page 128).
  options.prefetch = {{10 * kBlockSize, 100 * kBlockSize}, {120 * kBlockSize, 100 * kBlockSize}};
  FakeVmm vmm = serve(std::move(options));
  PageServerStats stats = server_->stats();
  while (stats.pages_prefetched + stats.pages_zero < 200) stats = server_->stats();
  for (uint64_t page = 10; page < 110; ++page) ASSERT_EQ(vmm.touch(page), content_of(page)) << page;
  for (uint64_t page = 120; page < 220; ++page) ASSERT_EQ(vmm.touch(page), content_of(page)) << page;
  stats = server_->stats();
  EXPECT_EQ(stats.faults, 0U);
  EXPECT_EQ(stats.pages_prefetched, 110U);
  EXPECT_EQ(stats.pages_zero, 90U);
  EXPECT_EQ(vmm.touch(3), content_of(3));
  EXPECT_EQ(server_->stats().faults, 1U);
}

// A region a page, the last of guest memory at the lowest address: both orders are searched, and every edge is met.
TEST_F(PageServerTest, RegionsInAnyOrderAreFoundByAddressAndByOffset) {
  PageServerOptions options;
  options.prefetch = {{20 * kBlockSize, 100 * kBlockSize}};
  start_server(std::move(options));
  FakeVmm vmm;
  vmm.set_up();
  EXPECT_TRUE(server_->expect_peer(::getpid()));
  vmm.connect(socket_path());
  nlohmann::json regions = nlohmann::json::array();
  for (uint64_t page = 0; page < kPages; ++page) {
    const uint64_t slot = kPages - 1 - page;
    regions.push_back(FakeVmm::region(vmm.memory.address() + slot * kBlockSize, kBlockSize, page * kBlockSize));
  }
  vmm.send(regions.dump());
  PageServerStats stats = server_->stats();
  while (stats.pages_prefetched + stats.pages_zero < 100) stats = server_->stats();
  for (uint64_t page = 20; page < 120; ++page) ASSERT_EQ(vmm.touch(kPages - 1 - page), content_of(page)) << page;
  EXPECT_EQ(server_->stats().faults, 0U);
  for (uint64_t page = 0; page < kPages; ++page) ASSERT_EQ(vmm.touch(kPages - 1 - page), content_of(page)) << page;
}

TEST_F(PageServerTest, WhatTheGuestGaveBackIsNotPrefetched) {
  for (int round = 0; round < 20; ++round) {
    PageServerOptions options;
    options.prefetch = {{0, 100 * kBlockSize}, {200 * kBlockSize, 56 * kBlockSize}};
    failure_ = {};
    FakeVmm vmm = serve(std::move(options));
    // Beside the prefetch, before or behind it: what reads as zeros once stays so.
    ASSERT_TRUE(discard_anonymous(vmm.memory.bytes().subspan(200 * kBlockSize, 40 * kBlockSize)));
    ASSERT_TRUE(discard_anonymous(vmm.memory.bytes().subspan(0, 5 * kBlockSize)));
    for (uint64_t page = 200; page < 240; ++page) ASSERT_EQ(vmm.touch(page), std::byte{0}) << page;
    for (uint64_t page = 0; page < 5; ++page) ASSERT_EQ(vmm.touch(page), std::byte{0}) << page;
    for (uint64_t page = 5; page < 100; ++page) ASSERT_EQ(vmm.touch(page), content_of(page)) << page;
    server_.reset();
  }
}

TEST_F(PageServerTest, DamageThatOnlyThePrefetchMeetsEndsNothing) {
  snapshot::testing::damage_file(layer_file_, 20 * kBlockSize);
  PageServerOptions options;
  options.prefetch = {{16 * kBlockSize, 84 * kBlockSize}};
  FakeVmm vmm = serve(std::move(options));
  for (uint64_t page = 200; page < kPages; ++page) ASSERT_EQ(vmm.touch(page), content_of(page));
  while (server_->activity().prefetch_left > 0) std::this_thread::yield();
  EXPECT_EQ(server_->stats().pages_prefetched, 48U) << "the whole frames of the piece in which it ended";
  server_.reset();
  EXPECT_EQ(failure_.get_future().wait_for(std::chrono::milliseconds(0)), std::future_status::timeout);
}

TEST_F(PageServerTest, ManyThreadsOnOnePageAllGoOn) {
  FakeVmm vmm = serve();
  std::vector<std::thread> threads;
  threads.reserve(8);
  std::atomic<int> right{0};
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      for (uint64_t page = 0; page < kPages; ++page) right += vmm.touch(page) == content_of(page) ? 1 : 0;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(right, 8 * static_cast<int>(kPages));
}

TEST_F(PageServerTest, RemovedPagesReadAsZerosAndAreTold) {
  FakeVmm vmm = serve();
  ASSERT_EQ(vmm.touch(3), content_of(3));
  // Page 3 is present, 40-49 never were: both must be zeros from now on, also when a neighbour brings its frame in.
  ASSERT_TRUE(discard_anonymous(vmm.memory.bytes().subspan(3 * kBlockSize, kBlockSize)));
  ASSERT_TRUE(discard_anonymous(vmm.memory.bytes().subspan(40 * kBlockSize, 10 * kBlockSize)));
  EXPECT_THAT(server_->removed(),
              ElementsAre(Range{3 * kBlockSize, kBlockSize}, Range{40 * kBlockSize, 10 * kBlockSize}));
  EXPECT_EQ(vmm.touch(39), content_of(39));
  EXPECT_EQ(vmm.touch(50), content_of(50));
  // Read again, they are there, and still not what the snapshot has: nobody has written them, so only this tells.
  for (const uint64_t page : {3, 40, 49}) EXPECT_EQ(vmm.touch(page), std::byte{0}) << page;
  EXPECT_THAT(server_->removed(),
              ElementsAre(Range{3 * kBlockSize, kBlockSize}, Range{40 * kBlockSize, 10 * kBlockSize}));
}

TEST_F(PageServerTest, RemoveStormBesideFaultsNeverHangsAndNeverShowsOldBytes) {
  FakeVmm vmm = serve();
  // One thread gives pages 0-49 back again and again; another reads 50-99, whose frames overlap and whose COPYs the
  // kernel refuses (EAGAIN) while a REMOVE waits unread.
  std::thread remover([&] {
    for (int round = 0; round < 200; ++round) {
      for (uint64_t page = 0; page < 50; page += 5) {
        (void)discard_anonymous(vmm.memory.bytes().subspan(page * kBlockSize, 5 * kBlockSize));
      }
    }
  });
  int wrong = 0;
  for (int round = 0; round < 20; ++round) {
    for (uint64_t page = 50; page < 100; ++page) wrong += vmm.touch(page) == content_of(page) ? 0 : 1;
  }
  remover.join();
  for (uint64_t page = 0; page < 50; ++page) wrong += vmm.touch(page) == std::byte{0} ? 0 : 1;
  EXPECT_EQ(wrong, 0);
}

TEST_F(PageServerTest, WriteProtectedInstallTellsExactlyWhatWasWritten) {
  if (!probe_userfaultfd().write_protect_async) GTEST_SKIP() << "this kernel has no asynchronous write-protection";
  start_server();
  FakeVmm vmm;
  vmm.memory = std::move(*Mapping::anonymous(kSize));
  vmm.uffd = std::move(*UserFaultFd::create(true));
  ASSERT_TRUE(vmm.uffd.register_missing({vmm.memory.address(), kSize}, true));
  EXPECT_TRUE(server_->expect_peer(::getpid()));
  vmm.connect(socket_path());
  auto region = FakeVmm::region(vmm.memory.address(), kSize, 0);
  region["stasis_write_protect"] = true;
  vmm.send(nlohmann::json::array({region}).dump());
  for (uint64_t page = 0; page < kPages; ++page) ASSERT_EQ(vmm.touch(page), content_of(page));
  for (const uint64_t page : {5, 6, 150, 255}) vmm.memory.bytes()[page * kBlockSize] = std::byte{1};
  const auto pagemap = real_file_system().open_read("/proc/self/pagemap");
  const Range all{vmm.memory.address(), kSize};
  const auto written = scan_written_there(pagemap->get(), all);
  const auto own = scan_private_pages(pagemap->get(), all);
  ASSERT_TRUE(written && own);
  const uint64_t base = vmm.memory.address();
  EXPECT_THAT(snapshot::intersect(*written, *own),
              ElementsAre(Range{base + 5 * kBlockSize, 2 * kBlockSize}, Range{base + 150 * kBlockSize, kBlockSize},
                          Range{base + 255 * kBlockSize, kBlockSize}))
      << "pages of zeros that were only read are written, as the kernel has it, and nobody's own";
  EXPECT_THAT(*scan_written_there(pagemap->get(), all), IsEmpty());
}

TEST_F(PageServerTest, DamagedLayerEndsTheSandboxWithTheReason) {
  snapshot::testing::damage_file(layer_file_, 20 * kBlockSize);
  FakeVmm vmm = serve();
  EXPECT_EQ(vmm.touch(0), content_of(0));  // another frame: whole
  // The vCPU that faults on the damaged frame is never let go on; here it is released by installing the page ourselves.
  std::thread vcpu([&] { (void)vmm.touch(20); });
  const Error error = failure_.get_future().get();
  EXPECT_EQ(error.code, Code::kDataLoss);
  EXPECT_THAT(error.message, HasSubstr(layer_file_.filename().string()));
  const std::vector<std::byte> release(kBlockSize);
  EXPECT_EQ(vmm.uffd.copy(vmm.memory.address() + 20 * kBlockSize, release, false).outcome, InstallOutcome::kDone);
  vcpu.join();
}

}  // namespace
}  // namespace stasis::pager
