// Layers that are not in memory, on a device that answers when the test lets it; the VMM is a process of its own.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "base/testing/slow_file_system.h"
#include "base/testing/sync_points.h"
#include "pager/testing/two_processes.h"
#include "snapshot/frame_fetcher.h"

namespace stasis::pager {
namespace {

using snapshot::kBlockSize;
using snapshot::kFrameSize;
using stasis::testing::AtPoint;
using stasis::testing::SlowFileSystem;
using stasis::testing::StopAt;
using testing::content_of;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::kPages;
using testing::kSize;
using ::testing::Optional;
using ::testing::UnorderedElementsAre;

constexpr uint64_t kPagesInFrame = kFrameSize / kBlockSize;
constexpr uint64_t frame(uint64_t number) { return number * kFrameSize; }

class FetchTest : public testing::TwoProcesses {
 protected:
  FileSystem& files() override { return files_; }
  void serve(PageServerOptions options = {}) {
    files_.hold();
    TwoProcesses::serve({}, std::move(options));
  }
  void TearDown() override {
    files_.release();  // before the server goes: it waits for its threads
    TwoProcesses::TearDown();
  }
  void await_parked(uint64_t count) {
    while (server_->activity().parked != count) std::this_thread::yield();
  }
  static PageServerOptions tries(int attempts) {
    PageServerOptions options;
    options.fetch.attempts = attempts;
    options.fetch.first_pause = Milliseconds(1);
    return options;
  }

  SlowFileSystem files_;
};

TEST_F(FetchTest, AFrameThatIsSlowHoldsNoFaultOnAnother) {
  serve();
  files_.release(frame(13));
  const auto slow = vmm_->read(3);
  ASSERT_TRUE(files_.await_begun(1));
  EXPECT_THAT(vmm_->read_now(13 * kPagesInFrame), Optional(content_of(13 * kPagesInFrame)));
  EXPECT_THAT(vmm_->read_now(150), Optional(std::byte{0})) << "zeros come from no layer";
  EXPECT_FALSE(vmm_->is_done(slow));
  EXPECT_EQ(server_->activity().parked, 1U);
  files_.release(frame(0));
  EXPECT_EQ(static_cast<std::byte>(vmm_->wait(slow)->value), content_of(3));
  files_.release();
  expect_content(0, kPages);
  EXPECT_EQ(server_->activity().parked, 0U);
}

TEST_F(FetchTest, AFrameIsFetchedOnceHoweverManyWaitForIt) {
  serve();
  std::vector<testing::VmmProcess::Ticket> reads;
  for (uint64_t page = 0; page < kPagesInFrame; ++page) reads.push_back(vmm_->read(page));
  await_parked(kPagesInFrame);
  ASSERT_TRUE(files_.await_begun(1));
  EXPECT_THAT(files_.begun(), ElementsAre(frame(0)));
  files_.release(frame(0));
  for (uint64_t page = 0; page < kPagesInFrame; ++page) {
    EXPECT_EQ(static_cast<std::byte>(vmm_->wait(reads[page])->value), content_of(page));
  }
  const auto begun = files_.begun();
  EXPECT_EQ(std::ranges::count(begun, frame(0)), 1);
}

TEST_F(FetchTest, FramesBesideAFaultAreFetchedAheadOfBeingTouched) {
  serve();
  files_.release(frame(0));
  EXPECT_THAT(vmm_->read_now(0), Optional(content_of(0)));
  EXPECT_THAT(vmm_->read_now(1), Optional(content_of(1)));
  // Reading on, the window grows over the next frame, which is not there: asked for, and not waited for.
  const auto next = vmm_->read(kPagesInFrame);
  ASSERT_TRUE(files_.await_begun(2));
  files_.release(frame(1));
  EXPECT_EQ(static_cast<std::byte>(vmm_->wait(next)->value), content_of(kPagesInFrame));
  ASSERT_TRUE(files_.await_begun(3));
  EXPECT_THAT(files_.begun(), ElementsAre(frame(0), frame(1), frame(2)));
}

TEST_F(FetchTest, APageThatIsGivenBackWhileItsFrameIsFetchedIsZerosAtOnce) {
  serve();
  const auto reads = vmm_->read(3);
  const auto other = vmm_->read(4);
  await_parked(2);
  ASSERT_TRUE(vmm_->wait(vmm_->give_back(3, 1)));
  EXPECT_EQ(vmm_->wait(reads)->value, 0U);
  EXPECT_FALSE(vmm_->is_done(other));
  files_.release(frame(0));
  EXPECT_EQ(static_cast<std::byte>(vmm_->wait(other)->value), content_of(4));
  EXPECT_THAT(vmm_->read_now(3), Optional(std::byte{0}));
  EXPECT_THAT(server_->removed(), ElementsAre(Range{3 * kBlockSize, kBlockSize}));
}

TEST_F(FetchTest, APageThatIsGivenBackWhenItsFrameHasComeIsZeros) {
  serve();
  StopAt fetched("fault_handler.fetched");
  const auto reads = vmm_->read(3);
  await_parked(1);
  files_.release(frame(0));
  ASSERT_TRUE(fetched.await());  // the frame is here, the fault is about to be answered
  const auto gives_back = vmm_->give_back(3, 1);
  ASSERT_TRUE(vmm_->await_event());
  fetched.go_on();
  ASSERT_TRUE(vmm_->wait(gives_back));
  EXPECT_EQ(vmm_->wait(reads)->value, 0U);
  expect_content(4, kPagesInFrame - 4);
}

// Its bytes are given to the kernel where they are: it would wait for the device in the page server's own thread.
TEST_F(FetchTest, AVerifiedFrameThatHasLeftMemoryHoldsNoFaultOnAnother) {
  ASSERT_TRUE(space_->layer(space_->map().layers()[0])->verify_all());
  serve();
  const AtPoint later("seen_lately.now", AtPoint::on<int64_t>([](int64_t& second) { second += 100; }));
  const auto slow = vmm_->read(3);
  ASSERT_TRUE(files_.await_begun(1));
  files_.release(frame(13));
  EXPECT_THAT(vmm_->read_now(13 * kPagesInFrame), Optional(content_of(13 * kPagesInFrame)));
  EXPECT_FALSE(vmm_->is_done(slow));
  files_.release(frame(0));
  EXPECT_EQ(static_cast<std::byte>(vmm_->wait(slow)->value), content_of(3));
  EXPECT_THAT(files_.begun(), ElementsAre(frame(0), frame(13)));
}

TEST_F(FetchTest, AVerifiedFrameThatDoesNotComeBackEndsTheSandboxWithTheReason) {
  ASSERT_TRUE(space_->layer(space_->map().layers()[0])->verify_all());
  serve(tries(2));
  const AtPoint later("seen_lately.now", AtPoint::on<int64_t>([](int64_t& second) { second += 100; }));
  files_.fail_at(frame(0), 2);
  (void)vmm_->read(3);
  const Error error = failure_.get_future().get();
  EXPECT_THAT(error.message, HasSubstr(layer_file_.string() + " at 0: read: Input/output error"));
}

TEST_F(FetchTest, ADeviceWithAHiccupIsTriedAgain) {
  serve(tries(3));
  files_.fail_at(frame(0), 2);
  files_.release(frame(0));
  EXPECT_THAT(vmm_->read_now(3), Optional(content_of(3)));
  EXPECT_FALSE(failed());
}

TEST_F(FetchTest, AFrameThatIsReadWronglyOnceIsReadAgain) {
  serve(tries(2));
  files_.damage_at(frame(0), 1);
  files_.release(frame(0));
  EXPECT_THAT(vmm_->read_now(3), Optional(content_of(3)));
  EXPECT_THAT(vmm_->read_now(0), Optional(content_of(0)));
  EXPECT_THAT(files_.begun(), ElementsAre(frame(0), frame(0)));
  EXPECT_FALSE(failed());
}

TEST_F(FetchTest, AFrameThatIsAlwaysReadWronglyEndsTheSandboxWithTheReason) {
  serve(tries(2));
  files_.damage_at(frame(0), 2);
  files_.release(frame(0));
  (void)vmm_->read(3);
  EXPECT_EQ(failure_.get_future().get().code, Code::kDataLoss);
}

TEST_F(FetchTest, AFrameThatCannotBeHadEndsTheSandboxWithTheReason) {
  serve(tries(3));
  files_.fail_at(frame(0), 3);
  (void)vmm_->read(3);
  const Error error = failure_.get_future().get();
  EXPECT_THAT(error.message, HasSubstr(layer_file_.string() + " at 0: read: Input/output error"));
  EXPECT_THAT(files_.begun(), ElementsAre(frame(0), frame(0), frame(0)));
}

TEST_F(FetchTest, AFrameThatDoesNotComeEndsTheSandboxWithTheReason) {
  PageServerOptions options;
  options.fetch.deadline = Milliseconds(50);
  serve(std::move(options));
  (void)vmm_->read(3);
  const Error error = failure_.get_future().get();
  EXPECT_EQ(error.code, Code::kDeadlineExceeded);
  EXPECT_THAT(error.message, HasSubstr("frame 0 of layer " + layer_file_.stem().string()));
  EXPECT_THAT(error.message, HasSubstr("did not come within 50 ms"));
}

TEST_F(FetchTest, AFrameThatFailsAfterItsPageWasGivenBackIsNobodysFailure) {
  serve(tries(1));
  const auto reads = vmm_->read(3);
  await_parked(1);
  ASSERT_TRUE(vmm_->wait(vmm_->give_back(3, 1)));
  EXPECT_EQ(vmm_->wait(reads)->value, 0U);
  files_.break_at(frame(0));
  EXPECT_THAT(vmm_->read_now(150), Optional(std::byte{0}));
  EXPECT_FALSE(failed());
}

TEST_F(FetchTest, WhatIsExpectedIsFetchedSeveralFramesAtOnceAndFaultsGoFirst) {
  PageServerOptions options;
  // One page of each frame: short ranges do not make it slow.
  for (const uint64_t number : {0, 1, 2, 3, 4, 5, 13, 14}) options.prefetch.push_back({frame(number), kBlockSize});
  serve(std::move(options));
  ASSERT_TRUE(files_.await_begun(snapshot::FrameFetcher::kThreads));
  EXPECT_THAT(files_.begun(), UnorderedElementsAre(frame(0), frame(1), frame(2), frame(3)));
  const auto reads = vmm_->read(250);
  await_parked(1);
  files_.release(frame(2));
  ASSERT_TRUE(files_.await_begun(5));
  EXPECT_EQ(files_.begun().back(), frame(15));
  files_.release();
  EXPECT_EQ(static_cast<std::byte>(vmm_->wait(reads)->value), content_of(250));
  while (server_->activity().prefetch_left > 0) std::this_thread::yield();
  EXPECT_EQ(server_->stats().pages_prefetched, 8U);
  expect_content(0, kPages);
}

TEST_F(FetchTest, AFrameThatIsExpectedAndCannotBeHadEndsThePrefetchOnly) {
  PageServerOptions options = tries(1);
  options.prefetch = {{frame(0), kFrameSize}, {frame(1), kFrameSize}};
  serve(std::move(options));
  files_.fail_at(frame(0), 1);
  files_.release();
  while (server_->activity().prefetch_left > 0) std::this_thread::yield();
  expect_content(0, kPages);
  EXPECT_FALSE(failed());
}

TEST_F(FetchTest, ClosingWhileFramesAreFetchedLeavesNobodyWaiting) {
  serve();
  (void)vmm_->read(3);
  ASSERT_TRUE(files_.await_begun(1));
  vmm_->kill();
  files_.release();
  server_.reset();
  EXPECT_FALSE(failed());
}

}  // namespace
}  // namespace stasis::pager
