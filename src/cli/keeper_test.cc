// A program of its own: a keeper blocks signals and adopts orphans for the whole process.
#include "cli/keeper.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "cli/up.h"

namespace stasis::cli {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

Service sleeper(const std::string& name) { return {name, {"/bin/sleep", "300"}}; }

// Steps until `done`, at most 20 seconds.
template <typename Condition>
bool step_until(Keeper& keeper, Condition done) {
  const Deadline deadline = Deadline::after(seconds(20));
  while (!done()) {
    if (deadline.passed()) return false;
    if (!keeper.step(Deadline::after(milliseconds(50)))) return false;
  }
  return true;
}

Path temporary_file(const std::string& name) {
  return Path(testing::TempDir()) / ("keeper." + name + "." + std::to_string(::getpid()));
}

bool running(pid_t pid) { return ::kill(pid, 0) == 0; }

TEST(Keeper, StartsAgainWhatDies) {
  auto keeper = Keeper::create({sleeper("a"), sleeper("b")});
  ASSERT_TRUE(keeper);
  ASSERT_TRUE(keeper->start());
  const pid_t a = keeper->pid_of("a");
  const pid_t b = keeper->pid_of("b");
  ::kill(a, SIGKILL);
  EXPECT_TRUE(step_until(*keeper, [&] { return keeper->pid_of("a") > 0 && keeper->pid_of("a") != a; }));
  EXPECT_EQ(keeper->end_of("a"), "signal 9 (Killed)");
  EXPECT_EQ(keeper->pid_of("b"), b);
  keeper->stop(seconds(10));
  EXPECT_FALSE(running(b));
}

TEST(Keeper, WaitsLongerAfterEachDeath) {
  auto keeper = Keeper::create({{"a", {"/bin/false"}}});
  ASSERT_TRUE(keeper);
  const auto start = Deadline::Clock::now();
  ASSERT_TRUE(keeper->start());
  int deaths = 0;
  pid_t last = keeper->pid_of("a");
  ASSERT_TRUE(step_until(*keeper, [&] {
    const pid_t now = keeper->pid_of("a");
    if (now > 0 && now != last) ++deaths;
    if (now > 0) last = now;
    return deaths == 3;
  }));
  EXPECT_GE(Deadline::Clock::now() - start, milliseconds(100 + 200 + 400));
  keeper->stop(seconds(10));
}

TEST(Keeper, ASignalAsksToStop) {
  auto keeper = Keeper::create({sleeper("a")});
  ASSERT_TRUE(keeper);
  ASSERT_TRUE(keeper->start());
  ::kill(::getpid(), SIGTERM);
  const auto stop = keeper->step(Deadline::after(seconds(20)));
  ASSERT_TRUE(stop);
  EXPECT_TRUE(*stop);
  keeper->stop(seconds(10));
}

TEST(Keeper, KillsWhatDoesNotStop) {
  const Path deaf = temporary_file("deaf");
  auto keeper =
      Keeper::create({{"a", {"/bin/sh", "-c", "trap '' TERM; : > " + deaf.string() + "; exec /bin/sleep 300"}}});
  ASSERT_TRUE(keeper);
  ASSERT_TRUE(keeper->start());
  const pid_t pid = keeper->pid_of("a");
  ASSERT_TRUE(step_until(*keeper, [&] { return std::filesystem::exists(deaf); }));
  const auto start = Deadline::Clock::now();
  keeper->stop(milliseconds(100));
  EXPECT_GE(Deadline::Clock::now() - start, milliseconds(100));
  EXPECT_FALSE(running(pid));
  std::filesystem::remove(deaf);
}

// As a supervisor does: it outlives the agent that started it, and is reaped when it ends.
TEST(Keeper, AdoptsWhatAServiceLeavesBehindAndReapsIt) {
  const Path file = temporary_file("pid");
  auto keeper = Keeper::create({{"a", {"/bin/sh", "-c", "/bin/sleep 300 & echo $! > " + file.string() + "; wait"}}});
  ASSERT_TRUE(keeper);
  ASSERT_TRUE(keeper->start());
  pid_t left = 0;
  ASSERT_TRUE(step_until(*keeper, [&] { return static_cast<bool>(std::ifstream(file) >> left); }));
  const pid_t service = keeper->pid_of("a");
  keeper->set_argv("a", {"/bin/sleep", "300"});
  ::kill(service, SIGKILL);
  ASSERT_TRUE(step_until(*keeper, [&] { return keeper->pid_of("a") > 0 && keeper->pid_of("a") != service; }));
  EXPECT_TRUE(running(left));
  ::kill(left, SIGKILL);
  EXPECT_TRUE(step_until(*keeper, [&] { return !running(left); }));  // a zombie would still be there
  keeper->stop(seconds(10));
  std::filesystem::remove(file);
}

TEST(Keeper, AProgramThatIsNotThereIsAnErrorAtTheStart) {
  auto keeper = Keeper::create({{"agent", {"/nonexistent/program"}}});
  ASSERT_TRUE(keeper);
  const Status started = keeper->start();
  ASSERT_FALSE(started);
  EXPECT_THAT(started.error().message, testing::StartsWith("start the agent"));
}

TEST(UpServices, RunThisProgramWithTheSameSocket) {
  const auto services = up_services(
      "/usr/bin/stasis", {.state_dir = "/s", .images = {{"base", "/i"}}, .port = 0, .vmm = "qemu", .spares = 3});
  ASSERT_EQ(services.size(), 2U);
  EXPECT_THAT(services[0].argv,
              testing::ElementsAre("/usr/bin/stasis", "agent", "--state-dir", "/s", "--socket", "/s/agent.sock",
                                   "--image", "base=/i", "--vmm", "qemu", "--spares", "3"));
  EXPECT_THAT(services[1].argv, testing::ElementsAre("/usr/bin/stasis", "server", "--state-dir", "/s", "--agent-socket",
                                                     "/s/agent.sock", "--port", "0"));
}

// A large image is imported before the agent answers.
TEST(Up, WaitsForAsLongAsTheServicesLive) {
  auto keeper = Keeper::create({sleeper("agent"), sleeper("server")});
  ASSERT_TRUE(keeper);
  ASSERT_TRUE(keeper->start());
  UpArguments arguments;
  arguments.state_dir = temporary_file("up");
  int notices = 0;
  const auto notice = [&] {
    if (++notices == 3) ::kill(keeper->pid_of("agent"), SIGKILL);
  };
  const auto ready = wait_until_ready(*keeper, arguments, milliseconds(1), notice);
  ASSERT_FALSE(ready);
  EXPECT_EQ(ready.error().message, "the agent ended (signal 9 (Killed)) before it answered");
  EXPECT_GE(notices, 3);
  keeper->stop(seconds(10));
}

}  // namespace
}  // namespace stasis::cli
