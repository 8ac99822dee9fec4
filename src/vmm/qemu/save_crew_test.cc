#include "vmm/qemu/save_crew.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <future>
#include <thread>

#include "vmm/contract/result_matchers.h"

namespace stasis::vmm {
namespace {

using ::testing::Each;

int processors_of(pid_t process) {
  cpu_set_t processors;
  EXPECT_EQ(::sched_getaffinity(process, sizeof processors, &processors), 0);
  return CPU_COUNT(&processors);
}

// What stands for QEMU does nothing.
class SaveCrewTest : public ::testing::Test {
 protected:
  void SetUp() override {
    vmm_ = ::fork();
    if (vmm_ == 0) {
      ::pause();
      ::_exit(0);
    }
  }
  void TearDown() override {
    ::kill(vmm_, SIGKILL);
    ::waitpid(vmm_, nullptr, 0);
  }
  const int all_ = processors_of(0);
  pid_t vmm_ = -1;
};

// Of two pieces the first ends only when the second has begun, and that when the VMM has been waited for.
TEST_F(SaveCrewTest, WhoHasWaitedForTheVmmHelpsWithTheLook) {
  SaveCrew crew(vmm_);
  std::promise<void> begun;
  bool waited = false;
  const auto wait_for_vmm = [&]() -> Status {
    waited = true;
    return {};
  };
  const auto look = [&](Piecework& walk) {
    std::atomic<int> pieces = 0;
    walk.run(2, [&](size_t) {
      if (++pieces == 1) return begun.get_future().wait();
      EXPECT_TRUE(waited);
      begun.set_value();
    });
  };
  EXPECT_OK(crew.run(wait_for_vmm, look));
}

TEST_F(SaveCrewTest, WhatTheVmmSaysIsReturned) {
  SaveCrew crew(vmm_);
  std::vector<int> pieces(100);
  const auto status =
      crew.run([]() -> Status { return fail(Code::kUnavailable, "it has ended"); },
               [&](Piecework& walk) { walk.run(pieces.size(), [&](size_t number) { ++pieces[number]; }); });
  EXPECT_FAILS(status, Code::kUnavailable);
  EXPECT_THAT(pieces, Each(1));
}

TEST_F(SaveCrewTest, TheVmmIsKeptOffUntilTheLookIsOver) {
  if (all_ == 1) GTEST_SKIP() << "one processor";
  {
    SaveCrew crew(vmm_);
    EXPECT_EQ(processors_of(0), 1);
    EXPECT_EQ(processors_of(vmm_), all_ - 1);
    std::promise<void> looked;
    const auto wait_for_vmm = [&]() -> Status {
      looked.get_future().wait();
      while (processors_of(vmm_) != all_) std::this_thread::yield();  // though it is not done
      return {};
    };
    EXPECT_OK(crew.run(wait_for_vmm, [&](Piecework&) {
      EXPECT_EQ(processors_of(vmm_), all_ - 1);
      looked.set_value();
    }));
  }
  EXPECT_EQ(processors_of(0), all_);
  EXPECT_EQ(processors_of(vmm_), all_);
}

TEST_F(SaveCrewTest, OneThatIsNotNeededLeavesNothing) {
  { const SaveCrew crew(vmm_); }
  EXPECT_EQ(processors_of(0), all_);
  EXPECT_EQ(processors_of(vmm_), all_);
}

}  // namespace
}  // namespace stasis::vmm
