#include "base/kept_apart.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/fd.h"

namespace stasis {
namespace {

using testing::Each;

using Processors = std::set<int>;

Processors allowed(pid_t thread) {
  cpu_set_t found;
  EXPECT_EQ(::sched_getaffinity(thread, sizeof found, &found), 0);
  Processors processors;
  for (int i = 0; i < CPU_SETSIZE; ++i) {
    if (CPU_ISSET(i, &found)) processors.insert(i);
  }
  return processors;
}

void allow(pid_t thread, const Processors& processors) {
  cpu_set_t wanted;
  CPU_ZERO(&wanted);
  for (const int processor : processors) CPU_SET(processor, &wanted);
  EXPECT_EQ(::sched_setaffinity(thread, sizeof wanted, &wanted), 0);
}

Processors without(Processors processors, int processor) {
  processors.erase(processor);
  return processors;
}

// A process of as many threads as it is told, that starts one more for each byte it reads.
class KeptApartTest : public testing::Test {
 protected:
  void SetUp() override {
    before_ = allowed(0);
    if (before_.size() < 2) GTEST_SKIP() << "one processor";
    int pipe[2];
    ASSERT_EQ(::pipe(pipe), 0);
    more_ = UniqueFd(pipe[1]);
    const UniqueFd read_end(pipe[0]);
    child_ = ::fork();
    if (child_ == 0) {
      more_.reset();
      start_thread();
      for (char byte = 0; ::read(read_end.get(), &byte, 1) == 1;) start_thread();
      ::_exit(0);
    }
    await_threads(2);
  }
  void TearDown() override {
    if (child_ > 0) {
      ::kill(child_, SIGKILL);
      ::waitpid(child_, nullptr, 0);
    }
  }
  static void start_thread() {
    std::thread([] { ::pause(); }).detach();
  }
  std::vector<pid_t> threads() const {
    std::vector<pid_t> found;
    for (const auto& task : std::filesystem::directory_iterator("/proc/" + std::to_string(child_) + "/task")) {
      found.push_back(std::atoi(task.path().filename().c_str()));
    }
    return found;
  }
  void await_threads(size_t count) const {
    while (threads().size() < count) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  std::vector<Processors> theirs() const {
    std::vector<Processors> found;
    for (const pid_t thread : threads()) found.push_back(allowed(thread));
    return found;
  }

  Processors before_;
  UniqueFd more_;
  pid_t child_ = -1;
};

TEST_F(KeptApartTest, TheOtherRunsOnAnyOtherProcessorUntilTheEnd) {
  {
    const KeptApart apart(child_);
    const int here = ::sched_getcpu();
    EXPECT_EQ(allowed(0), Processors{here});
    EXPECT_THAT(theirs(), Each(without(before_, here)));
  }
  EXPECT_EQ(allowed(0), before_);
  EXPECT_THAT(theirs(), Each(before_));
}

TEST_F(KeptApartTest, SoDoThreadsThatItStartsMeanwhile) {
  {
    const KeptApart apart(child_);
    const size_t before = threads().size();
    ASSERT_EQ(::write(more_.get(), "1", 1), 1);
    await_threads(before + 1);
    EXPECT_THAT(theirs(), Each(without(before_, ::sched_getcpu())));
  }
  EXPECT_THAT(theirs(), Each(before_));
}

TEST_F(KeptApartTest, WhoMayRunNowhereElseStays) {
  const Processors only{::sched_getcpu()};
  allow(0, only);
  for (const pid_t thread : threads()) allow(thread, only);
  {
    const KeptApart apart(child_);
    EXPECT_THAT(theirs(), Each(only));
  }
  EXPECT_THAT(theirs(), Each(only));
  EXPECT_EQ(allowed(0), only);
  allow(0, before_);
}

TEST_F(KeptApartTest, AProcessThatHasEndedIsNothingToKeepOff) {
  ::kill(child_, SIGKILL);
  ::waitpid(child_, nullptr, 0);
  {
    const KeptApart apart(std::exchange(child_, -1));
    EXPECT_EQ(allowed(0), before_);
  }
  EXPECT_EQ(allowed(0), before_);
}

}  // namespace
}  // namespace stasis
