// Races between a VMM and its page server, each in the order that matters: the server stops at a sync point until the
// VMM, a process of its own, is where it has to be.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "base/testing/sync_points.h"
#include "base/userfaultfd.h"
#include "pager/testing/two_processes.h"

namespace stasis::pager {
namespace {

using snapshot::kBlockSize;
using stasis::testing::AtPoint;
using stasis::testing::StopAt;
using testing::content_of;
using ::testing::ElementsAre;
using testing::kPages;
using testing::kSize;
using ::testing::Optional;

constexpr std::byte kZero{0};

// On both kinds of guest memory.
class RaceTest : public testing::TwoProcesses, public ::testing::WithParamInterface<bool> {
 protected:
  void serve(PageServerOptions options = {}) { TwoProcesses::serve({.shared = GetParam()}, std::move(options)); }
  static PageServerOptions expecting(Range pages) {
    PageServerOptions options;
    options.prefetch = {{pages.offset * kBlockSize, pages.length * kBlockSize}};
    return options;
  }
};

INSTANTIATE_TEST_SUITE_P(Memory, RaceTest, ::testing::Bool(),
                         [](const auto& memory) { return memory.param ? "shared" : "anonymous"; });

TEST_P(RaceTest, APageThatIsGivenBackWhileItsFaultIsAnsweredIsZeros) {
  serve();
  StopAt before_copy("userfaultfd.copy");
  const auto reads = vmm_->read(3);
  ASSERT_TRUE(before_copy.await());  // the layer's bytes are in the server's hand
  const auto gives_back = vmm_->give_back(3, 1);
  ASSERT_TRUE(vmm_->await_event());
  before_copy.go_on();
  ASSERT_TRUE(vmm_->wait(gives_back));
  EXPECT_EQ(vmm_->wait(reads)->value, 0U);
  EXPECT_EQ(server_->stats().pages_by_fault, 0U);
  EXPECT_THAT(server_->removed(), ElementsAre(Range{3 * kBlockSize, kBlockSize}));
  expect_content(4, kPages - 4);
}

// In the batch the fault stands before the REMOVE; an answer in that order would be stale.
TEST_P(RaceTest, ARemoveIsAppliedBeforeTheFaultsOfItsBatch) {
  serve();
  ASSERT_THAT(vmm_->read_now(210), Optional(content_of(210)));
  StopAt before_copy("userfaultfd.copy");
  const auto first = vmm_->read(90);
  ASSERT_TRUE(before_copy.await());
  const auto second = vmm_->read(3);
  ASSERT_TRUE(vmm_->await_faults(2));
  const auto gives_back = vmm_->give_back(0, 10);
  std::atomic<bool> together{false};
  const AtPoint batch("userfaultfd.events", AtPoint::on<ReadEvents>([&](ReadEvents& read) {
                        const auto events = read.events.first(read.count);
                        const auto fault = std::ranges::find(events, FaultEvent::Kind::kPageFault, &FaultEvent::kind);
                        const auto remove = std::ranges::find(events, FaultEvent::Kind::kRemove, &FaultEvent::kind);
                        together = together || (fault < remove && remove != events.end());
                      }));
  ASSERT_TRUE(vmm_->await_remove(210));
  before_copy.go_on();
  ASSERT_TRUE(vmm_->wait(gives_back));
  EXPECT_EQ(vmm_->wait(second)->value, 0U);
  EXPECT_EQ(static_cast<std::byte>(vmm_->wait(first)->value), content_of(90));
  EXPECT_TRUE(together);
}

// The event of a REMOVE has been read, a fault is answered with zeros, and only then the memory goes. Here the late
// effect is that of a second madvise whose event the server never sees.
TEST_P(RaceTest, WhatGoesAfterItsEventWasReadIsStillTold) {
  serve();
  ASSERT_THAT(vmm_->read_now(3), Optional(content_of(3)));
  ASSERT_TRUE(vmm_->wait(vmm_->give_back(3, 1)));
  ASSERT_THAT(vmm_->read_now(3), Optional(kZero));
  std::atomic<int> dropped{0};
  const AtPoint drop("userfaultfd.events", AtPoint::on<ReadEvents>([&](ReadEvents& read) {
                       if (read.events[0].kind == FaultEvent::Kind::kRemove) dropped += static_cast<int>(read.count);
                       if (read.events[0].kind == FaultEvent::Kind::kRemove) read.count = 0;
                     }));
  ASSERT_TRUE(vmm_->wait(vmm_->give_back(3, 1)));
  while (dropped == 0) std::this_thread::yield();  // the madvise returns once it has been read
  EXPECT_THAT(server_->removed(), ElementsAre(Range{3 * kBlockSize, kBlockSize}));
  EXPECT_THAT(vmm_->read_now(3), Optional(kZero));
  EXPECT_THAT(server_->take_removed(), ElementsAre(Range{3 * kBlockSize, kBlockSize}));
}

TEST_P(RaceTest, AFaultOnAPageThatThePrefetchHoldsHasItsContent) {
  StopAt before_copy("userfaultfd.copy");
  serve(expecting({0, 50}));
  ASSERT_TRUE(before_copy.await());
  const auto reads = vmm_->read(5);
  ASSERT_TRUE(vmm_->await_faults(1));
  before_copy.go_on();
  EXPECT_EQ(static_cast<std::byte>(vmm_->wait(reads)->value), content_of(5));
  expect_content(0, kPages);
  EXPECT_EQ(server_->stats().pages_prefetched, 50U);
}

TEST_P(RaceTest, APageThatIsGivenBackWhileThePrefetchHoldsItIsZeros) {
  StopAt before_copy("userfaultfd.copy");
  serve(expecting({0, 50}));
  ASSERT_TRUE(before_copy.await());
  const auto gives_back = vmm_->give_back(2, 3);
  ASSERT_TRUE(vmm_->await_event());
  before_copy.go_on();
  ASSERT_TRUE(vmm_->wait(gives_back));
  for (uint64_t page = 2; page < 5; ++page) EXPECT_THAT(vmm_->read_now(page), Optional(kZero));
  expect_content(0, 2);
  expect_content(5, kPages - 5);
}

TEST_P(RaceTest, ClosingDoesNotWaitForTheRestOfThePrefetch) {
  std::atomic<int> copies{0};
  StopAt closing("page_server.stopping");
  const AtPoint count("userfaultfd.copy", [&](void*) {
    if (++copies == 1) closing.await();
  });
  serve(expecting({0, 100}));  // two pieces
  while (copies == 0) std::this_thread::yield();
  std::thread closes([&] { server_.reset(); });
  closing.go_on();
  closes.join();
  EXPECT_EQ(copies, 1);
  EXPECT_FALSE(failed());
}

TEST_P(RaceTest, ManyThreadsOnOnePageAreAllWoken) {
  serve();
  StopAt before_copy("userfaultfd.copy");
  std::vector<testing::VmmProcess::Ticket> reads;
  reads.reserve(16);
  for (int i = 0; i < 16; ++i) reads.push_back(vmm_->read(20));
  ASSERT_TRUE(before_copy.await());
  ASSERT_TRUE(vmm_->await_faults(16));
  before_copy.go_on();
  for (const auto ticket : reads) EXPECT_EQ(static_cast<std::byte>(vmm_->wait(ticket)->value), content_of(20));
  while (server_->stats().pages_by_fault == 0) std::this_thread::yield();
  EXPECT_EQ(server_->stats().pages_by_fault, 1U);
}

TEST_P(RaceTest, ThePageThatIsWaitedForComesFirstAndItsReaderGoesOnBeforeTheNeighboursCome) {
  serve();
  std::vector<Range> copies;
  StopAt neighbours("test.neighbours");
  const AtPoint each("userfaultfd.copy", AtPoint::on<InstallAttempt>([&](InstallAttempt& attempt) {
                       copies.push_back({attempt.range.offset - vmm_->address(), attempt.range.length});
                       if (copies.size() == 2) sync_point("test.neighbours");
                     }));
  const auto reads = vmm_->read(5);
  ASSERT_TRUE(neighbours.await());
  const auto reply = vmm_->wait(reads);
  ASSERT_TRUE(reply) << "it still waits";
  EXPECT_EQ(static_cast<std::byte>(reply->value), content_of(5));
  neighbours.go_on();
  while (server_->stats().pages_around < 15) std::this_thread::yield();
  server_.reset();  // nobody else adds to them now
  EXPECT_THAT(copies, ElementsAre(Range{5 * kBlockSize, kBlockSize}, Range{0, 5 * kBlockSize},
                                  Range{6 * kBlockSize, 10 * kBlockSize}));
}

TEST_P(RaceTest, ManyEventsAreReadAtOnce) {
  serve();
  std::atomic<size_t> most{0};
  const AtPoint count("userfaultfd.events",
                      AtPoint::on<ReadEvents>([&](ReadEvents& read) { most = std::max<size_t>(most, read.count); }));
  StopAt before_copy("userfaultfd.copy");
  // While the server is with this one, the others come.
  const auto first = vmm_->read(250);
  ASSERT_TRUE(before_copy.await());
  std::vector<testing::VmmProcess::Ticket> reads;
  for (uint64_t page = 0; page < 100; ++page) reads.push_back(vmm_->read(page));
  ASSERT_TRUE(vmm_->await_faults(101));
  before_copy.go_on();
  EXPECT_EQ(static_cast<std::byte>(vmm_->wait(first)->value), content_of(250));
  for (uint64_t page = 0; page < 100; ++page) {
    EXPECT_EQ(static_cast<std::byte>(vmm_->wait(reads[page])->value), content_of(page));
  }
  EXPECT_GT(most, 30U);
}

TEST_P(RaceTest, StormsOfRemovesBesideFaultsAndPrefetchShowNothingOld) {
  serve(expecting({0, 100}));
  const auto storm = vmm_->give_back_often(0, 50, 100);
  const auto other = vmm_->give_back_often(200, 20, 100);
  std::vector<testing::VmmProcess::Ticket> reads;
  for (uint64_t page = 50; page < 100; ++page) reads.push_back(vmm_->read(page));
  for (uint64_t i = 0; i < reads.size(); ++i) {
    EXPECT_EQ(static_cast<std::byte>(vmm_->wait(reads[i])->value), content_of(50 + i));
  }
  ASSERT_TRUE(vmm_->wait(storm));
  ASSERT_TRUE(vmm_->wait(other));
  std::vector<Range> given_back;
  for (uint64_t page = 0; page < 50; page += 5) given_back.push_back({page * kBlockSize, kBlockSize});
  for (uint64_t page = 200; page < 220; page += 5) given_back.push_back({page * kBlockSize, kBlockSize});
  EXPECT_EQ(server_->removed(), given_back);
  for (const Range& page : given_back) EXPECT_THAT(vmm_->read_now(page.offset / kBlockSize), Optional(kZero));
  EXPECT_THAT(vmm_->read_now(201), Optional(content_of(201)));
}

TEST_P(RaceTest, AServerThatStopsBeforeItsVmmConnectsIsNoLongerThere) {
  start_vmm({.shared = GetParam()});
  start_server();
  EXPECT_TRUE(server_->expect_peer(vmm_->pid()));
  server_.reset();
  EXPECT_FALSE(vmm_->wait(vmm_->connect(socket_path()))->ok);
  EXPECT_FALSE(failed());
}

TEST_P(RaceTest, AServerThatStopsWhileItsVmmIsInTheQueueLeavesNobodyWaiting) {
  start_vmm({.shared = GetParam()});
  start_server();
  // Nobody has said who may connect: the server does not take the connection.
  ASSERT_TRUE(vmm_->wait(vmm_->connect(socket_path()))->ok);
  server_.reset();
  EXPECT_FALSE(failed());
}

TEST_P(RaceTest, AVmmThatDiesWhileItsFaultIsAnsweredIsNoFailure) {
  serve();
  StopAt before_copy("userfaultfd.copy");
  (void)vmm_->read(3);
  ASSERT_TRUE(before_copy.await());
  vmm_->kill();
  before_copy.go_on();
  server_.reset();
  EXPECT_FALSE(failed());
}

}  // namespace
}  // namespace stasis::pager
