#include "base/piecework.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <thread>
#include <vector>

namespace stasis {
namespace {

using testing::Each;

TEST(PieceworkTest, AloneItDoesEachPieceOnce) {
  Piecework work;
  std::vector<int> done(10);
  work.run(done.size(), [&](size_t number) { ++done[number]; });
  EXPECT_THAT(done, Each(1));
  work.run(0, [](size_t) { FAIL() << "there is no piece"; });
}

// The first piece ends only when another has begun: that takes a second thread.
TEST(PieceworkTest, WhoHelpsTakesPieces) {
  Piecework work;
  auto helper = std::async(std::launch::async, [&] { work.help(); });
  for (int round = 0; round < 100; ++round) {
    std::promise<void> begun;
    std::atomic<int> pieces = 0;
    work.run(2, [&](size_t) {
      if (++pieces == 2) return begun.set_value();
      begun.get_future().wait();
    });
    EXPECT_EQ(pieces, 2);
  }
  work.close();
  helper.get();
}

TEST(PieceworkTest, ManyHelpersDoEachPieceOnceInEveryRun) {
  Piecework work;
  std::vector<std::future<void>> helpers;
  for (int i = 0; i < 4; ++i) helpers.push_back(std::async(std::launch::async, [&] { work.help(); }));
  for (size_t count = 0; count < 300; ++count) {
    std::vector<int> done(count);
    work.run(count, [&](size_t number) { ++done[number]; });
    ASSERT_THAT(done, Each(1));
  }
  work.close();
  for (auto& helper : helpers) helper.get();
}

TEST(PieceworkTest, WhoComesToHelpAfterTheEndGoes) {
  Piecework work;
  work.run(1, [](size_t) {});
  work.close();
  work.help();
}

}  // namespace
}  // namespace stasis
