#include "snapshot/frame_fetcher.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <condition_variable>
#include <map>
#include <mutex>
#include <set>
#include <system_error>
#include <thread>

#include "base/testing/sync_points.h"

namespace stasis::snapshot {
namespace {

constexpr FrameRef frame(uint32_t number) { return {0, number}; }

// Answers when it is told to.
class ScriptedSource final : public FrameSource {
 public:
  Status load(FrameRef frame) const override {
    std::unique_lock lock(mutex_);
    ++loads_[frame.frame];
    at_once_ = std::max(at_once_, ++loading_);
    changed_.notify_all();
    changed_.wait(lock, [&] { return released_.contains(frame.frame); });
    --loading_;
    if (failures_[frame.frame] == 0) return {};
    --failures_[frame.frame];
    return fail(Code::kUnavailable, "frame " + std::to_string(frame.frame) + ": no answer");
  }
  std::string describe(FrameRef frame) const override { return "frame " + std::to_string(frame.frame); }

  void release(uint32_t number, int failures = 0) {
    const std::lock_guard lock(mutex_);
    released_.insert(number);
    failures_[number] = failures;
    changed_.notify_all();
  }
  bool await_loading(size_t count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, Milliseconds(20'000), [&] { return loading_ == count; });
  }
  int loads(uint32_t number) {
    const std::lock_guard lock(mutex_);
    return loads_[number];
  }
  size_t at_once() {
    const std::lock_guard lock(mutex_);
    return at_once_;
  }

 private:
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  mutable std::map<uint32_t, int> loads_;
  mutable std::map<uint32_t, int> failures_;
  mutable size_t loading_ = 0;
  mutable size_t at_once_ = 0;
  std::set<uint32_t> released_;
};

class FrameFetcherTest : public ::testing::Test {
 protected:
  void start(FetchLimits limits = {}) { fetcher_ = std::move(*FrameFetcher::create(source_, limits)); }
  // On a host that has so many threads left.
  void start_with(int threads) {
    fetcher_ = std::move(*FrameFetcher::create(source_, {}, [threads](std::function<void()> run) mutable {
      if (threads-- <= 0) throw std::system_error(EAGAIN, std::generic_category());
      FrameFetcher::start_detached(std::move(run));
    }));
  }
  bool want(uint32_t number, FetchUrgency urgency = FetchUrgency::kDemand) {
    return fetcher_->want(frame(number), urgency);
  }
  // Until so many have settled.
  std::map<uint32_t, Status> take(size_t count) {
    std::map<uint32_t, Status> all;
    while (all.size() < count) {
      const Deadline late = Deadline::after(Milliseconds(20'000));
      const Deadline next = fetcher_->next_deadline();
      const auto readable = wait_readable(fetcher_->fd(), next.at() < late.at() ? next : late);
      EXPECT_TRUE(readable);
      if (late.passed()) break;
      for (Fetched& one : fetcher_->take()) all.emplace(one.frame.frame, std::move(one.status));
    }
    return all;
  }

  std::shared_ptr<ScriptedSource> source_ = std::make_shared<ScriptedSource>();
  std::unique_ptr<FrameFetcher> fetcher_;
};

TEST_F(FrameFetcherTest, FramesAreFetchedSeveralAtOnceAndEachOnce) {
  start();
  for (uint32_t i = 0; i < 10; ++i) want(i);
  for (uint32_t i = 0; i < 10; ++i) want(i);
  ASSERT_TRUE(source_->await_loading(FrameFetcher::kThreads));
  EXPECT_EQ(fetcher_->queue_length(), 10U);
  for (uint32_t i = 0; i < 10; ++i) source_->release(i);
  const auto all = take(10);
  EXPECT_EQ(fetcher_->queue_length(), 0U);
  EXPECT_EQ(all.size(), 10U);
  for (const auto& [number, status] : all) {
    EXPECT_TRUE(status) << number;
    EXPECT_EQ(source_->loads(number), 1) << number;
  }
  EXPECT_EQ(source_->at_once(), FrameFetcher::kThreads);
  EXPECT_FALSE(*wait_readable(fetcher_->fd(), Deadline::after(Milliseconds(0)))) << "all of it was taken";
}

TEST_F(FrameFetcherTest, ASlowFrameHoldsNoOther) {
  start();
  want(1);
  want(2);
  source_->release(2);
  EXPECT_TRUE(take(1).contains(2));
  source_->release(1);
  EXPECT_TRUE(take(1).contains(1));
}

TEST_F(FrameFetcherTest, WhatFailsIsTriedAgainAndThenTold) {
  start({.attempts = 3, .first_pause = Milliseconds(1)});
  source_->release(1, 2);
  source_->release(2, 3);
  want(1);
  want(2);
  const auto all = take(2);
  EXPECT_TRUE(all.at(1));
  EXPECT_EQ(all.at(2).error().message, "frame 2: no answer");
  EXPECT_EQ(source_->loads(1), 3);
  EXPECT_EQ(source_->loads(2), 3);
}

TEST_F(FrameFetcherTest, WhatDoesNotComeInTimeIsToldWithItsName) {
  start({.deadline = Milliseconds(1)});
  want(1);
  const auto all = take(1);
  EXPECT_EQ(all.at(1).error().code, Code::kDeadlineExceeded);
  EXPECT_EQ(all.at(1).error().message, "frame 1: it did not come within 1 ms");
  source_->release(1);
}

TEST_F(FrameFetcherTest, ClosingDropsWhatWaitsAndEndsWhatIsOnItsWay) {
  start();
  for (uint32_t i = 0; i < 10; ++i) want(i);
  ASSERT_TRUE(source_->await_loading(FrameFetcher::kThreads));
  stasis::testing::StopAt closing("frame_fetcher.closing");
  std::thread closes([&] { fetcher_.reset(); });
  ASSERT_TRUE(closing.await());
  closing.go_on();
  for (uint32_t i = 0; i < 10; ++i) source_->release(i);
  closes.join();
  while (source_.use_count() > 1) std::this_thread::yield();  // no thread is left once the last has let go of all
  for (uint32_t i = 0; i < 10; ++i) EXPECT_EQ(source_->loads(i), i < FrameFetcher::kThreads ? 1 : 0) << i;
}

TEST_F(FrameFetcherTest, ASourceThatHangsIsLeftBehindWithWhatItUses) {
  start();
  want(1);
  ASSERT_TRUE(source_->await_loading(1));
  fetcher_.reset();
  EXPECT_GT(source_.use_count(), 1);
  source_->release(1);
  while (source_.use_count() > 1) std::this_thread::yield();
}

TEST_F(FrameFetcherTest, AHostWithoutThreadsIsToldOfTheFrame) {
  start_with(0);
  EXPECT_TRUE(want(1));
  const auto all = take(1);
  EXPECT_EQ(all.at(1).error().code, Code::kResourceExhausted);
  EXPECT_EQ(all.at(1).error().message.substr(0, 9), "frame 1: ");
  EXPECT_EQ(source_->loads(1), 0);
}

TEST_F(FrameFetcherTest, FewerThreadsFetchAllTheSame) {
  start_with(1);
  for (uint32_t i = 0; i < 10; ++i) want(i);
  for (uint32_t i = 0; i < 10; ++i) source_->release(i);
  for (const auto& [number, status] : take(10)) EXPECT_TRUE(status) << number;
  EXPECT_EQ(source_->at_once(), 1U);
}

}  // namespace
}  // namespace stasis::snapshot
