// Every event of userfaultfd and every answer of the kernel, from a VMM in a process of its own; what the kernel cannot
// be made to say is put into its mouth at a sync point.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/userfaultfd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <filesystem>

#include "base/testing/sync_points.h"
#include "base/userfaultfd.h"
#include "pager/fault_handler.h"
#include "pager/testing/two_processes.h"

namespace stasis::pager {
namespace {

using snapshot::kBlockSize;
using stasis::testing::AtPoint;
using stasis::testing::StopAt;
using testing::content_of;
using ::testing::HasSubstr;
using testing::kPages;
using ::testing::Optional;

class EventsTest : public testing::TwoProcesses {
 protected:
  Error failure() {
    auto told = failure_.get_future();
    if (told.wait_for(Milliseconds(20'000)) != std::future_status::ready) return {Code::kUnknown, "nothing was told"};
    return told.get();
  }
  static constexpr Milliseconds kLong{3'600'000};
  static PageServerOptions leaving_within(Milliseconds deadline) {
    PageServerOptions options;
    options.exit_deadline = deadline;
    return options;
  }
  // The first `times` calls at the point are answered so, without being made.
  static sync_points::Action answering(InstallResult result, std::atomic<int>& times) {
    return AtPoint::on<InstallAttempt>([result, &times](InstallAttempt& attempt) {
      if (times.fetch_sub(1) > 0) attempt.answer = result;
    });
  }
};

TEST_F(EventsTest, UnmappedMemoryEndsTheSandbox) {
  serve({.features = UFFD_FEATURE_EVENT_UNMAP});
  (void)vmm_->unmap(0, 4);
  EXPECT_EQ(failure().message, "page server: the VMM has unmapped guest memory");
}

TEST_F(EventsTest, MovedMemoryEndsTheSandbox) {
  serve({.features = UFFD_FEATURE_EVENT_REMAP});
  (void)vmm_->move(0, 4);
  EXPECT_EQ(failure().message, "page server: the VMM has moved guest memory");
}

TEST_F(EventsTest, AForkEndsTheSandboxAndLeavesNoDescriptor) {
  serve({.features = UFFD_FEATURE_EVENT_FORK});
  const auto descriptors = [] {
    return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), std::filesystem::directory_iterator());
  };
  EXPECT_THAT(vmm_->read_now(0), Optional(content_of(0)));  // now the server has opened all that it needs
  const auto before = descriptors();
  std::atomic<long> after{0};
  const AtPoint decoded("userfaultfd.events", [&](void*) { after = descriptors(); });
  (void)vmm_->fork();
  EXPECT_THAT(failure().message, HasSubstr("the VMM has forked"));
  EXPECT_EQ(after, before);
}

TEST_F(EventsTest, AnUnknownEventEndsTheSandbox) {
  serve();
  const AtPoint unknown("userfaultfd.events", AtPoint::on<ReadEvents>([](ReadEvents& read) {
                          read.events[0].kind = FaultEvent::Kind::kUnknown;
                        }));
  (void)vmm_->read(0);
  EXPECT_THAT(failure().message, HasSubstr("does not know"));
}

TEST_F(EventsTest, AFaultThatTheKernelRefusesForTheMomentIsTriedAgain) {
  serve();
  std::atomic<int> times{5};
  const AtPoint refuse("userfaultfd.copy", answering({InstallOutcome::kTryAgain, 0, EAGAIN}, times));
  EXPECT_THAT(vmm_->read_now(3), Optional(content_of(3)));
  EXPECT_LT(times, 0);
  EXPECT_EQ(server_->stats().faults, 1U);  // the kernel has told it once
}

// Each event that the kernel tells stands for as many as are read at once.
TEST_F(EventsTest, MoreFaultsThanAVmmOfOursHasEndTheSandbox) {
  serve();
  const AtPoint refuse("userfaultfd.copy", AtPoint::on<InstallAttempt>([](InstallAttempt& attempt) {
                         attempt.answer = InstallResult{InstallOutcome::kTryAgain, 0, EAGAIN};
                       }));
  const AtPoint many("userfaultfd.events", AtPoint::on<ReadEvents>([](ReadEvents& read) {
                       std::ranges::fill(read.events, FaultEvent(read.events[0]));
                       read.count = read.events.size();
                     }));
  for (uint64_t parked = 64; parked <= kMaxParked; parked += 64) {
    (void)vmm_->read(parked / 64);
    while (server_->activity().parked != parked) std::this_thread::yield();
  }
  (void)vmm_->read(0);
  EXPECT_EQ(failure().message, "page server: too many faults wait for a REMOVE event");
}

TEST_F(EventsTest, TheSameForZeros) {
  serve();
  std::atomic<int> times{5};
  const AtPoint refuse("userfaultfd.zero", answering({InstallOutcome::kTryAgain, 0, EAGAIN}, times));
  EXPECT_THAT(vmm_->read_now(150), Optional(std::byte{0}));
  EXPECT_LT(times, 0);
}

TEST_F(EventsTest, WhatTheKernelCannotHaveFromALayersPagesIsRead) {
  ASSERT_TRUE(space_->layer(space_->map().layers()[0])->verify_all());
  serve();
  std::atomic<int> times{1};
  const AtPoint refuse("userfaultfd.copy", answering({InstallOutcome::kFailed, 0, EFAULT}, times));
  EXPECT_THAT(vmm_->read_now(3), Optional(content_of(3)));
  EXPECT_LT(times, 0);
  expect_content(0, 100);
}

TEST_F(EventsTest, AVerifiedPageThatIsGoneEndsTheSandbox) {
  ASSERT_TRUE(space_->layer(space_->map().layers()[0])->verify_all());
  serve();
  std::filesystem::permissions(layer_file_, std::filesystem::perms(0600));
  std::filesystem::resize_file(layer_file_, 0);
  (void)vmm_->read(3);
  const Error error = failure();
  EXPECT_EQ(error.code, Code::kDataLoss);
  EXPECT_THAT(error.message, HasSubstr(layer_file_.string() + " ends"));
}

// Its frame begins before the loss: there it can still be read.
TEST_F(EventsTest, ALossInTheMiddleOfAVerifiedFrameEndsTheSandbox) {
  ASSERT_TRUE(space_->layer(space_->map().layers()[0])->verify_all());
  serve();
  std::filesystem::permissions(layer_file_, std::filesystem::perms(0600));
  std::filesystem::resize_file(layer_file_, 3 * kBlockSize);
  (void)vmm_->read(3);
  const Error error = failure();
  EXPECT_EQ(error.code, Code::kDataLoss);
  EXPECT_THAT(error.message, HasSubstr(layer_file_.string() + " ends"));
}

TEST_F(EventsTest, APageThatSomebodyElseInstalledStaysAndItsReaderIsWoken) {
  serve();
  StopAt before_copy("userfaultfd.copy");
  const auto reads = vmm_->read(3);
  ASSERT_TRUE(before_copy.await());
  const Range page{vmm_->address() + 3 * kBlockSize, kBlockSize};
  ASSERT_EQ(vmm_->uffd().zero(page, false).outcome, InstallOutcome::kDone);  // wakes nobody
  before_copy.go_on();
  EXPECT_EQ(vmm_->wait(reads)->value, 0U);
  expect_content(4, kPages - 4);
}

TEST_F(EventsTest, ShortCopiesGoOnFromWhereTheyEnded) {
  serve();
  std::atomic<int> calls{0};
  const AtPoint one_page("userfaultfd.copy", AtPoint::on<InstallAttempt>([&](InstallAttempt& attempt) {
                           ++calls;
                           attempt.range.length = kBlockSize;
                         }));
  EXPECT_THAT(vmm_->read_now(0), Optional(content_of(0)));
  expect_content(0, 100);
  const auto installed = [](const PageServerStats& stats) { return stats.pages_by_fault + stats.pages_around; };
  while (installed(server_->stats()) < 100) std::this_thread::yield();
  EXPECT_EQ(calls, 100);
}

TEST_F(EventsTest, ShortZerosGoOnFromWhereTheyEnded) {
  serve();
  const AtPoint one_page("userfaultfd.zero", AtPoint::on<InstallAttempt>([&](InstallAttempt& attempt) {
                           attempt.range.length = std::min(attempt.range.length, 3 * kBlockSize);
                         }));
  expect_content(100, 100);
  while (server_->stats().pages_zero < 100) std::this_thread::yield();  // neighbours come after the page that is read
}

TEST_F(EventsTest, MemoryThatIsNoLongerRegisteredEndsTheSandbox) {
  serve();  // without UNMAP events: only the copy tells
  StopAt before_copy("userfaultfd.copy");
  (void)vmm_->read(3);
  ASSERT_TRUE(before_copy.await());
  ASSERT_TRUE(vmm_->wait(vmm_->unmap(0, 8))->ok);
  before_copy.go_on();
  EXPECT_THAT(failure().message, HasSubstr("offset 12288 of guest memory: the VMM has unmapped it"));
}

// The process has let go of its memory: it is about to end.
TEST_F(EventsTest, AProcessThatIsGoingIsNoFailure) {
  serve({}, leaving_within(kLong));
  std::atomic<int> times{1};
  const AtPoint gone("userfaultfd.copy", answering({InstallOutcome::kProcessGone, 0, ESRCH}, times));
  StopAt left("page_server.left");
  StopAt ended("page_server.ended");
  (void)vmm_->read(3);
  ASSERT_TRUE(left.await());
  left.go_on();
  vmm_->kill();
  ASSERT_TRUE(ended.await());
  EXPECT_FALSE(failed());
}

TEST_F(EventsTest, AProcessThatIsGoingAndStaysEndsTheSandbox) {
  serve({}, leaving_within(Milliseconds(20)));
  std::atomic<int> times{1};
  const AtPoint gone("userfaultfd.copy", answering({InstallOutcome::kProcessGone, 0, ESRCH}, times));
  (void)vmm_->read(3);
  EXPECT_THAT(failure().message, HasSubstr("lives on"));
}

TEST_F(EventsTest, AVmmThatEndsIsNoFailure) {
  serve({}, leaving_within(kLong));
  EXPECT_THAT(vmm_->read_now(0), Optional(content_of(0)));
  StopAt ended("page_server.ended");
  vmm_->kill();
  ASSERT_TRUE(ended.await());
  EXPECT_FALSE(failed());
}

TEST_F(EventsTest, AVmmThatEndsAfterItHasLeftIsNoFailure) {
  serve({}, leaving_within(kLong));
  StopAt left("page_server.left");
  StopAt ended("page_server.ended");
  (void)vmm_->disconnect();
  ASSERT_TRUE(left.await());
  left.go_on();
  vmm_->kill();
  ASSERT_TRUE(ended.await());
  EXPECT_FALSE(failed());
}

// Its guest would wait for its next page for ever.
TEST_F(EventsTest, AVmmThatLeavesAndLivesOnEndsTheSandbox) {
  serve({}, leaving_within(Milliseconds(20)));
  (void)vmm_->disconnect();
  EXPECT_EQ(failure().message,
            "page server: the VMM closed its page server's connection or gave up its memory, and lives on");
}

TEST_F(EventsTest, AServerThatIsStoppedDoesNotWaitForTheVmmThatHasLeft) {
  serve({}, leaving_within(kLong));
  StopAt left("page_server.left");
  (void)vmm_->disconnect();
  ASSERT_TRUE(left.await());
  left.go_on();
  server_.reset();
  EXPECT_FALSE(failed());
}

TEST_F(EventsTest, MemoryThatCannotBeHadEndsTheSandbox) {
  serve();
  std::atomic<int> times{1};
  const AtPoint full("userfaultfd.copy", answering({InstallOutcome::kFailed, 0, ENOMEM}, times));
  (void)vmm_->read(3);
  const Error error = failure();
  EXPECT_EQ(error.code, Code::kResourceExhausted);
  EXPECT_THAT(error.message, HasSubstr("install page at offset 12288"));
}

}  // namespace
}  // namespace stasis::pager
