// Background loading: all that layers hold comes without being touched, behind everything else.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <thread>

#include "base/testing/slow_file_system.h"
#include "pager/testing/two_processes.h"
#include "snapshot/frame_fetcher.h"
#include "snapshot/testing/fixtures.h"

namespace stasis::pager {
namespace {

using snapshot::kBlockSize;
using snapshot::kFrameSize;
using testing::content_of;
using ::testing::HasSubstr;
using testing::kPages;
using ::testing::Optional;
using testing::page_has_data;

constexpr uint64_t kDataPages = 156;
constexpr uint64_t frame(uint64_t number) { return number * kFrameSize; }

PageServerOptions loading(uint64_t bytes_per_second = uint64_t{1} << 30) {
  PageServerOptions options;
  options.load_bytes_per_second = bytes_per_second;
  options.fetch.first_pause = Milliseconds(1);
  return options;
}

class LoadTest : public testing::TwoProcesses {
 protected:
  FileSystem& files() override { return files_; }
  void TearDown() override {
    files_.release();
    TwoProcesses::TearDown();
  }
  LoadState await_end() {
    while (server_->load().state == LoadState::kLoading) std::this_thread::yield();
    return server_->load().state;
  }
  uint64_t loaded() { return server_->stats().pages_loaded; }

  stasis::testing::SlowFileSystem files_;
};

TEST_F(LoadTest, AllThatLayersHoldComesAndIsNotFaultedOnAnyMore) {
  serve({}, loading());
  EXPECT_EQ(await_end(), LoadState::kComplete);
  EXPECT_EQ(loaded(), kDataPages);
  EXPECT_EQ(server_->activity().load_left, 0U);
  EXPECT_EQ(server_->stats().pages_zero, 0U) << "zeros are no layer's";
  for (uint64_t page = 0; page < kPages; ++page) {
    if (!page_has_data(page)) continue;
    ASSERT_THAT(vmm_->read_now(page), Optional(content_of(page)));
  }
  EXPECT_EQ(server_->stats().faults, 0U);
  expect_content(0, kPages);
}

TEST_F(LoadTest, NothingIsLoadedUnlessItIsAskedFor) {
  serve();
  expect_content(0, kPages);
  EXPECT_EQ(server_->load().state, LoadState::kNone);
  EXPECT_EQ(loaded(), 0U);
}

TEST_F(LoadTest, ItGoesNoFasterThanItMayAndFaultsAreServedMeanwhile) {
  serve({}, loading(1));  // a byte a second: after the first piece it is nobody's turn for three days
  while (loaded() < 64) std::this_thread::yield();
  EXPECT_THAT(vmm_->read_now(250), Optional(content_of(250)));
  EXPECT_EQ(loaded(), 64U);
  EXPECT_EQ(server_->load().state, LoadState::kLoading);
  EXPECT_EQ(server_->activity().load_left, (kDataPages - 64) * kBlockSize);
}

TEST_F(LoadTest, WhatIsWaitedForAndWhatIsExpectedGoFirst) {
  PageServerOptions options = loading();
  options.prefetch = {{frame(5), 2 * kBlockSize}};
  files_.hold();
  serve({}, std::move(options));
  ASSERT_TRUE(files_.await_begun(1));
  EXPECT_EQ(files_.begun().front(), frame(5));
  const auto reads = vmm_->read(250);
  ASSERT_TRUE(files_.await_begun(2));
  EXPECT_EQ(files_.begun().back(), frame(15)) << "while what is expected is on its way, nothing else is fetched";
  while (server_->activity().parked == 0) std::this_thread::yield();
  const ActivityStats waiting = server_->activity();
  EXPECT_EQ(waiting.parked, 1U);
  EXPECT_EQ(waiting.fetching, 2U);
  EXPECT_EQ(waiting.prefetch_left, 2 * kBlockSize);
  EXPECT_EQ(waiting.load_left, kDataPages * kBlockSize);
  files_.release(frame(5));
  ASSERT_TRUE(files_.await_begun(5));
  files_.release(frame(15));
  EXPECT_EQ(static_cast<std::byte>(vmm_->wait(reads)->value), content_of(250));
  while (server_->stats().pages_around < 15) std::this_thread::yield();  // before the rest may come
  files_.release();
  EXPECT_EQ(await_end(), LoadState::kComplete);
  while (server_->activity().fetching > 0) std::this_thread::yield();  // a frame is here before it has left the queue
  const ActivityStats all = server_->activity();
  EXPECT_EQ(all.pages_of(Arrival::kFault, false), 1U);
  EXPECT_EQ(all.pages_of(Arrival::kAround, false), 15U);
  EXPECT_EQ(all.pages_of(Arrival::kPrefetch, false), 2U);
  EXPECT_EQ(all.pages_of(Arrival::kBackground, false), kDataPages - 18);
  ASSERT_EQ(all.sources.size(), 1U);
  EXPECT_EQ(all.sources[0].layer, space_->map().layers()[0]);
  EXPECT_EQ(all.sources[0].bytes, kDataPages * kBlockSize);
  EXPECT_EQ(std::accumulate(all.service.begin(), all.service.end(), uint64_t{0}), 1U);
  expect_content(0, kPages);
}

TEST_F(LoadTest, ItWaitsUntilItIsKnownWhatIsTouched) {
  PageServerOptions options = loading();
  options.record_for = Milliseconds(100);
  serve({}, std::move(options));
  while (loaded() == 0) std::this_thread::yield();
  EXPECT_TRUE(*wait_readable(server_->working_set_fd(), Deadline::after(Milliseconds(0))));
  EXPECT_EQ(await_end(), LoadState::kComplete);
}

TEST_F(LoadTest, WhatTheGuestHasGivenBackStaysZeros) {
  files_.hold();
  serve({}, loading());
  ASSERT_TRUE(files_.await_begun(1));
  EXPECT_EQ(server_->activity().load_left, kDataPages * kBlockSize);
  ASSERT_TRUE(vmm_->wait(vmm_->give_back(2, 3)));
  files_.release();
  EXPECT_EQ(await_end(), LoadState::kComplete);
  EXPECT_EQ(loaded(), kDataPages - 3);
  for (uint64_t page = 2; page < 5; ++page) EXPECT_THAT(vmm_->read_now(page), Optional(std::byte{0}));
  expect_content(5, kPages - 5);
}

TEST_F(LoadTest, AFrameThatCannotBeHadEndsItWithTheReasonAndNothingElse) {
  snapshot::testing::damage_file(layer_file_, 20 * kBlockSize);
  serve({}, loading());
  EXPECT_EQ(await_end(), LoadState::kEnded);
  EXPECT_EQ(server_->load().why->code, Code::kDataLoss);
  EXPECT_THAT(server_->load().why->message, HasSubstr("frame 1 (64 KiB at 65536) is damaged"));
  EXPECT_FALSE(failed());
  expect_content(32, kPages - 32);
}

TEST_F(LoadTest, ClosingDoesNotWaitForTheRest) {
  serve({}, loading(1));
  while (loaded() == 0) std::this_thread::yield();
  server_.reset();
  EXPECT_FALSE(failed());
}

}  // namespace
}  // namespace stasis::pager
