#include "base/standby_thread.h"

#include <gtest/gtest.h>

#include <chrono>
#include <mutex>
#include <set>

namespace stasis {
namespace {

using namespace std::chrono_literals;

class StandbyThreadTest : public testing::Test {
 protected:
  void SetUp() override {
    standby_ = StandbyThread::start();
    if (!standby_) GTEST_SKIP() << "this machine has one processor";
  }
  // Every piece once, by whomever.
  void share_pieces(size_t count) {
    std::atomic<size_t> next = 0;
    std::vector<std::atomic<int>> done(count);
    standby_->share([&] {
      for (size_t i = 0; (i = next.fetch_add(1)) < count;) ++done[i];
    });
    for (const auto& times : done) ASSERT_EQ(times, 1);
  }
  std::unique_ptr<StandbyThread> standby_;
};

TEST_F(StandbyThreadTest, EveryPieceIsDoneOnce) {
  for (size_t count = 0; count < 200; ++count) share_pieces(count);
}

TEST_F(StandbyThreadTest, ItIsWokenWhenItSleeps) {
  for (int i = 0; i < 3; ++i) {
    std::this_thread::sleep_for(20ms);
    share_pieces(100);
  }
}

// Until both are there at once: neither call may end before.
TEST_F(StandbyThreadTest, BothWorkAtOnce) {
  std::atomic<int> there = 0;
  standby_->share([&] {
    ++there;
    while (there < 2) std::this_thread::yield();
  });
  EXPECT_EQ(there, 2);
}

TEST_F(StandbyThreadTest, TheCallerWaitsForWhatTheOtherHasBegun) {
  std::atomic<bool> other_ended = false;
  std::atomic<int> there = 0;
  const auto caller = std::this_thread::get_id();
  standby_->share([&] {
    ++there;
    while (there < 2) std::this_thread::yield();
    if (std::this_thread::get_id() == caller) return;
    std::this_thread::sleep_for(20ms);
    other_ended = true;
  });
  EXPECT_TRUE(other_ended);
}

TEST_F(StandbyThreadTest, ItEndsWhetherItWasUsedOrNot) {
  for (int i = 0; i < 50; ++i) {
    auto another = StandbyThread::start();
    if (i % 3 == 0) another->share([] {});
    if (i % 10 == 0) std::this_thread::sleep_for(10ms);
  }
}

}  // namespace
}  // namespace stasis
