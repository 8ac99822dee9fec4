// What the page server tells of a VMM: its working set, and what was counted.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <numeric>
#include <thread>

#include "pager/testing/vmm_thread.h"

namespace stasis::pager {
namespace {

using snapshot::kBlockSize;
using testing::content_of;
using testing::FakeVmm;
using ::testing::IsEmpty;
using testing::PageServerTest;

TEST_F(PageServerTest, WhatWasNeededIsToldInItsOrder) {
  PageServerOptions options;
  options.record_for = Milliseconds(1000);
  FakeVmm vmm = serve(std::move(options));
  ASSERT_EQ(vmm.touch(90), content_of(90));
  ASSERT_EQ(vmm.touch(3), content_of(3));
  ASSERT_TRUE(wait_readable(server_->working_set_fd(), Deadline::after(Milliseconds(20'000))).value());
  const auto set = server_->working_set();
  ASSERT_EQ(set.size(), 2U);
  EXPECT_EQ(set[0].range, (Range{80 * kBlockSize, 16 * kBlockSize}));
  EXPECT_EQ(set[1].range, (Range{0, 16 * kBlockSize}));
  EXPECT_LE(set[0].when_us, set[1].when_us);
}

// Whoever pauses the guest early does not wait for the rest.
TEST_F(PageServerTest, WhatWasNeededUntilNowIsToldWhileItIsWrittenDown) {
  PageServerOptions options;
  options.record_for = Milliseconds(3'600'000);
  start_server(std::move(options));
  EXPECT_THAT(server_->working_set(), IsEmpty());
  FakeVmm vmm;
  vmm.set_up();
  EXPECT_TRUE(server_->expect_peer(::getpid()));
  vmm.hand_over(socket_path());
  ASSERT_EQ(vmm.touch(90), content_of(90));
  ASSERT_EQ(vmm.touch(3), content_of(3));
  while (server_->working_set().size() < 2) std::this_thread::yield();
  EXPECT_EQ(server_->working_set()[0].range, (Range{80 * kBlockSize, 16 * kBlockSize}));
  EXPECT_EQ(server_->working_set()[1].range, (Range{0, 16 * kBlockSize}));
  EXPECT_FALSE(wait_readable(server_->working_set_fd(), Deadline::after(Milliseconds(0))).value());
}

TEST_F(PageServerTest, WhatIsNeededIsNotWrittenDownAnyMoreWhenItIsTold) {
  PageServerOptions options;
  options.record_for = Milliseconds(3'600'000);
  FakeVmm vmm = serve(std::move(options));
  ASSERT_EQ(vmm.touch(90), content_of(90));
  server_->end_recording_after(Milliseconds(0));
  ASSERT_TRUE(wait_readable(server_->working_set_fd(), Deadline::after(Milliseconds(20'000))).value());
  server_->end_recording_after(Milliseconds(3'600'000));  // it does not begin again
  ASSERT_EQ(vmm.touch(3), content_of(3));
  const auto set = server_->working_set();
  ASSERT_EQ(set.size(), 1U);
  EXPECT_EQ(set[0].range, (Range{80 * kBlockSize, 16 * kBlockSize}));
}

TEST_F(PageServerTest, WhatIsToldBeforeTheHandshakeHolds) {
  PageServerOptions options;
  options.record_for = Milliseconds(3'600'000);
  start_server(std::move(options));
  server_->end_recording_after(Milliseconds(0));
  server_->end_recording_after(Milliseconds(3'600'000));  // the soonest one does
  FakeVmm vmm;
  vmm.set_up();
  server_->expect_peer(::getpid());
  vmm.hand_over(socket_path());
  EXPECT_TRUE(wait_readable(server_->working_set_fd(), Deadline::after(Milliseconds(20'000))).value());
}

TEST_F(PageServerTest, WhatItDidIsCountedByKindCauseOutcomeWayAndLayer) {
  PageServerOptions options;
  options.prefetch = {{0, 8 * kBlockSize}};
  start_server(std::move(options));
  FakeVmm vmm;
  vmm.set_up();
  EXPECT_TRUE(server_->expect_peer(::getpid()));
  EXPECT_EQ(server_->activity().sources.size(), 0U);
  vmm.hand_over(socket_path());
  while (server_->stats().pages_prefetched < 8) std::this_thread::yield();
  vmm.memory.bytes()[120 * kBlockSize] = std::byte{7};  // of zeros; its neighbours come along: 112 to 127
  EXPECT_EQ(vmm.touch(230), content_of(230));           // and 224 to 239
  while (server_->stats().pages_around + server_->stats().pages_zero < 31) std::this_thread::yield();
  const std::span given_back = vmm.memory.bytes().subspan(232 * kBlockSize, kBlockSize);
  ASSERT_TRUE(discard_anonymous(given_back));
  EXPECT_EQ(vmm.touch(232), std::byte{0});
  // A page is counted a moment after it has come, and stands in the timeline last.
  const auto removed_came = [&] {
    const Timeline now = server_->timeline();
    return !now.events.empty() && now.events.back().range == Range{232 * kBlockSize, kBlockSize};
  };
  while (!removed_came()) std::this_thread::yield();
  const auto stats = server_->activity();
  const auto faults = [&](FaultKind kind, FaultCause cause, FaultOutcome outcome) {
    return stats.faults[static_cast<size_t>(kind)][static_cast<size_t>(cause)][static_cast<size_t>(outcome)];
  };
  EXPECT_EQ(faults(FaultKind::kWrite, FaultCause::kAbsent, FaultOutcome::kZeroed), 1U);
  EXPECT_EQ(faults(FaultKind::kRead, FaultCause::kAbsent, FaultOutcome::kCopied), 1U);
  EXPECT_EQ(faults(FaultKind::kRead, FaultCause::kRemoved, FaultOutcome::kZeroed), 1U);
  EXPECT_EQ(stats.pages_of(Arrival::kPrefetch, false), 8U);
  EXPECT_EQ(stats.pages_of(Arrival::kFault, false), 1U);
  EXPECT_EQ(stats.pages_of(Arrival::kAround, false), 15U);
  EXPECT_EQ(stats.pages_of(Arrival::kFault, true), 2U);
  EXPECT_EQ(stats.pages_of(Arrival::kAround, true), 15U);
  ASSERT_EQ(stats.sources.size(), 2U);
  EXPECT_TRUE(stats.sources[0].layer.is_nil());
  EXPECT_EQ(stats.sources[0].bytes, 17 * kBlockSize);
  EXPECT_EQ(stats.sources[1].layer, space_->map().layers()[0]);
  EXPECT_EQ(stats.sources[1].bytes, 24 * kBlockSize);
  EXPECT_EQ(std::accumulate(stats.service.begin(), stats.service.end(), uint64_t{0}), 3U);
  EXPECT_EQ(stats.prefetch_left, 0U);
  EXPECT_EQ(stats.parked, 0U);

  const Timeline timeline = server_->timeline();
  EXPECT_EQ(timeline.left_out, 0U);
  uint64_t pages = 0;
  for (const ArrivalEvent& event : timeline.events) pages += event.range.length / kBlockSize;
  EXPECT_EQ(pages, 8U + 16U + 16U + 1U);
  ASSERT_GE(timeline.events.size(), 4U);
  EXPECT_EQ(timeline.events[0].range, (Range{0, 8 * kBlockSize}));
  EXPECT_EQ(timeline.events[0].how, Arrival::kPrefetch);
  EXPECT_EQ(timeline.events[1].range, (Range{120 * kBlockSize, kBlockSize}));
  EXPECT_EQ(timeline.events[1].how, Arrival::kFault);
  EXPECT_TRUE(timeline.events[1].zeros);
}

}  // namespace
}  // namespace stasis::pager
