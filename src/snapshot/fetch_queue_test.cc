#include "snapshot/fetch_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace stasis::snapshot {
namespace {

using ::testing::HasSubstr;
using ::testing::Optional;
using Time = FetchQueue::Time;

constexpr FrameRef frame(uint32_t number) { return {0, number}; }
Status broken() { return fail(Code::kInternal, "the device"); }

class FetchQueueTest : public ::testing::Test {
 protected:
  bool want(uint32_t number, FetchUrgency urgency = FetchUrgency::kDemand) {
    return queue_.want(frame(number), urgency, now_);
  }
  std::optional<FrameRef> start() { return queue_.start(now_); }
  void finish(uint32_t number, Status status = {}) { queue_.finish(frame(number), std::move(status), now_); }
  void pass(int64_t ms) { now_ += Milliseconds(ms); }

  FetchQueue queue_{{.attempts = 3,
                     .first_pause = Milliseconds(20),
                     .longest_pause = Milliseconds(30),
                     .deadline = Milliseconds(1'000),
                     .most_unwaited = 3}};
  Time now_{std::chrono::hours(1)};
};

TEST_F(FetchQueueTest, WhatIsWaitedForGoesFirstAndElseWhatWasWantedFirst) {
  want(1, FetchUrgency::kBackground);
  want(2, FetchUrgency::kAhead);
  want(3, FetchUrgency::kNear);
  want(4);
  want(5);
  EXPECT_EQ(queue_.unstarted(), 5U);
  for (const uint32_t next : {4, 5, 3, 2, 1}) EXPECT_THAT(start(), Optional(frame(next)));
  EXPECT_EQ(start(), std::nullopt);
  EXPECT_EQ(queue_.unstarted(), 0U);
  EXPECT_EQ(queue_.size(), 5U);
  EXPECT_EQ(queue_.next_start(), Time::max());
}

TEST_F(FetchQueueTest, AFrameIsFetchedOnceWhoeverWantsIt) {
  want(7, FetchUrgency::kBackground);
  EXPECT_THAT(start(), Optional(frame(7)));
  want(7);
  want(7, FetchUrgency::kAhead);
  EXPECT_EQ(start(), std::nullopt);
  EXPECT_EQ(queue_.size(), 1U);
  finish(7);
  EXPECT_EQ(queue_.size(), 0U);
  const auto fetched = queue_.take();
  ASSERT_EQ(fetched.size(), 1U);
  EXPECT_EQ(fetched[0].frame, frame(7));
  EXPECT_EQ(fetched[0].urgency, FetchUrgency::kDemand);
  EXPECT_TRUE(fetched[0].status);
  EXPECT_FALSE(queue_.has_settled());
}

TEST_F(FetchQueueTest, WhatBecomesUrgentGoesFirst) {
  want(1, FetchUrgency::kAhead);
  want(2, FetchUrgency::kAhead);
  want(2);
  EXPECT_THAT(start(), Optional(frame(2)));
}

TEST_F(FetchQueueTest, WhatFailsIsTriedAgainAfterAPauseThatDoublesAndThenIsTold) {
  want(1);
  start();
  finish(1, broken());
  EXPECT_EQ(start(), std::nullopt);
  EXPECT_EQ(queue_.next_start(), now_ + Milliseconds(20));
  pass(20);
  EXPECT_THAT(start(), Optional(frame(1)));
  finish(1, broken());
  EXPECT_EQ(queue_.next_start(), now_ + Milliseconds(30)) << "40, but 30 is the longest";
  pass(30);
  start();
  EXPECT_FALSE(queue_.has_settled());
  finish(1, broken());
  const auto fetched = queue_.take();
  ASSERT_EQ(fetched.size(), 1U);
  EXPECT_EQ(fetched[0].status.error().message, "the device");
}

TEST_F(FetchQueueTest, AnotherAttemptMayBeSuccessful) {
  want(1);
  start();
  finish(1, broken());
  want(2);
  EXPECT_THAT(start(), Optional(frame(2))) << "nobody waits for the pause of another frame";
  pass(20);
  start();
  finish(1);
  EXPECT_TRUE(queue_.take().at(0).status);
}

TEST_F(FetchQueueTest, WhatIsLateHasFailedAndIsStillFetchedOnlyOnce) {
  want(1, FetchUrgency::kBackground);
  start();
  EXPECT_EQ(queue_.next_deadline(), Time::max()) << "nobody waits for it";
  pass(5'000);
  want(1);
  EXPECT_EQ(queue_.next_deadline(), now_ + Milliseconds(1'000));
  pass(999);
  queue_.expire(now_);
  EXPECT_FALSE(queue_.has_settled());
  pass(1);
  queue_.expire(now_);
  const auto fetched = queue_.take();
  ASSERT_EQ(fetched.size(), 1U);
  EXPECT_EQ(fetched[0].status.error().code, Code::kDeadlineExceeded);
  EXPECT_EQ(fetched[0].status.error().message, "it did not come within 1000 ms");
  queue_.expire(now_);
  EXPECT_FALSE(queue_.has_settled());
  want(1);
  EXPECT_EQ(start(), std::nullopt);
  finish(1);
  EXPECT_TRUE(queue_.take().at(0).status) << "it was wanted again before it came";
}

TEST_F(FetchQueueTest, WhatComesTooLateIsNotTold) {
  want(1);
  start();
  pass(1'000);
  queue_.expire(now_);
  EXPECT_EQ(queue_.take().size(), 1U);
  finish(1);
  EXPECT_FALSE(queue_.has_settled());
}

TEST_F(FetchQueueTest, ALateOneThatPausesSaysWhatWasWrong) {
  want(1);
  start();
  pass(990);
  finish(1, broken());
  pass(10);
  queue_.expire(now_);
  EXPECT_THAT(queue_.take().at(0).status.error().message, HasSubstr("the device"));
}

TEST_F(FetchQueueTest, WhatNobodyWaitsForIsBounded) {
  for (const auto urgency : {FetchUrgency::kNear, FetchUrgency::kAhead, FetchUrgency::kBackground}) {
    const auto first = static_cast<uint32_t>(urgency) * 10;
    for (uint32_t i = 0; i < 3; ++i) EXPECT_TRUE(want(first + i, urgency));
    EXPECT_FALSE(want(first + 3, urgency));
    EXPECT_TRUE(want(first, urgency)) << "it is in the queue";
  }
  for (uint32_t i = 100; i < 4196; ++i) EXPECT_TRUE(want(i)) << "each of these is one blocked thread";
}

}  // namespace
}  // namespace stasis::snapshot
