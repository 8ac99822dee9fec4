// The start of a process, while it is under way and many at once.
#include <gmock/gmock.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <filesystem>
#include <future>

#include "base/testing/eventually.h"
#include "guest/daemon_fixture.h"
#include "guest/silent_mount.h"

namespace stasis::guest {
namespace {

using nlohmann::json;
using stasis::testing::eventually;
using ::testing::HasSubstr;

constexpr size_t kPage = 4096;

// Writes to every page, and returns how many page faults this process has had by then.
long touch(char* memory, size_t pages, char value) {
  for (size_t page = 0; page < pages; ++page) static_cast<volatile char*>(memory)[page * kPage] = value;
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_minflt;
}

class DaemonStartTest : public DaemonFixture {
 protected:
  std::future<Outcome> start_elsewhere(const json& request, const HeaderMap& headers = {}) {
    return std::async(std::launch::async, [this, request, headers] {
      DaemonClient client(port_);
      return follow(*client.stream("process.Process/Start", request, headers));
    });
  }
  // A start that hangs in its exec.
  std::future<Outcome> hang(const SilentMount& mount, const HeaderMap& headers = {}) {
    auto outcome = start_elsewhere({{"process", {{"cmd", mount.path("program")}}}}, headers);
    EXPECT_TRUE(mount.await_request());
    return outcome;
  }
  json list() { return client_->rpc("process.Process/List", json::object()).json(); }
};

TEST_F(DaemonStartTest, OneThatHangsHoldsNobodyUpAndCanBeKilled) {
  const SilentMount mount;
  auto outcome = hang(mount);
  EXPECT_EQ(run("echo alive").out, "alive\n");
  json listed = list();
  ASSERT_EQ(listed["processes"].size(), 1U);
  const json process = {{"pid", listed["processes"][0]["pid"]}};
  EXPECT_EQ(client_->rpc("process.Process/SendSignal", {{"process", process}, {"signal", "SIGNAL_SIGKILL"}}).body,
            "{}");
  EXPECT_EQ(outcome.get().end["status"], "signal: killed");
  EXPECT_TRUE(list().empty());
}

TEST_F(DaemonStartTest, OneThatHangsHoldsNothingOfTheDaemon) {
  const SilentMount mount;
  auto outcome = hang(mount, {{"Authorization", "Basic " + base64_encode("daemon:")}});
  const std::string proc = "/proc/" + list()["processes"][0]["pid"].dump();
  const std::filesystem::directory_iterator descriptors(proc + "/fd");
  EXPECT_EQ(std::distance(begin(descriptors), end(descriptors)), 3);
  // It still shares the daemon's memory, which is not for the user that it runs as.
  auto look =
      run("id -un; cat " + proc + "/mem", json::object(), {{"Authorization", "Basic " + base64_encode("daemon:")}});
  EXPECT_EQ(look.out, "daemon\n");
  EXPECT_THAT(look.err, HasSubstr("Permission denied"));
  table_.kill_all();
  EXPECT_EQ(outcome.get().end["status"], "signal: killed");
}

TEST_F(DaemonStartTest, TheDeadlineKillsOneThatHangs) {
  const SilentMount mount;
  EXPECT_EQ(hang(mount, {{"Connect-Timeout-Ms", "300"}}).get().error["code"], "deadline_exceeded");
  EXPECT_TRUE(list().empty());
}

TEST_F(DaemonStartTest, OneThatFailsLateIsToldToWhoeverFollowsIt) {
  SilentMount mount;
  auto outcome = hang(mount);
  auto follower =
      client_->stream("process.Process/Connect", json{{"process", {{"pid", list()["processes"][0]["pid"]}}}});
  mount.give_up();
  auto failed = outcome.get();
  EXPECT_EQ(failed.error["code"], "invalid_argument");
  EXPECT_THAT(failed.error["message"].get<std::string>(), HasSubstr("exec: \"" + mount.path("program") + "\": "));
  EXPECT_EQ(follow(*follower).end["exitCode"], 127);
  EXPECT_TRUE(list().empty());
}

TEST_F(DaemonStartTest, ThoseThatHangCountAsRunning) {
  rlimit files{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &files), 0);
  files.rlim_cur = files.rlim_max;
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &files), 0);
  const SilentMount mount;
  ProcessTable::Start request;
  request.spawn.program = mount.path("program");
  request.spawn.directory = "/";
  std::vector<std::future<bool>> starts;
  starts.reserve(ProcessTable::kMaxRunning);
  while (starts.size() < ProcessTable::kMaxRunning) {
    starts.push_back(std::async(std::launch::async, [&] { return table_.start(request).has_value(); }));
  }
  EXPECT_TRUE(eventually([&] { return table_.running().size() == ProcessTable::kMaxRunning; }));
  auto one_more = table_.start(request);
  ASSERT_FALSE(one_more);
  EXPECT_EQ(one_more.error().code, Code::kResourceExhausted);
  table_.kill_all();
  for (auto& start : starts) EXPECT_TRUE(start.get());
}

TEST_F(DaemonStartTest, EveryEndIsReportedHoweverSoonItComes) {
  std::vector<std::future<void>> threads;
  threads.reserve(4);
  for (int thread = 0; thread < 4; ++thread) {
    threads.push_back(std::async(std::launch::async, [this] {
      DaemonClient client(port_);
      for (int i = 0; i < 75; ++i) {
        auto ends = client.stream("process.Process/Start", json{{"process", {{"cmd", "/bin/true"}}}});
        EXPECT_EQ(follow(*ends).end.value("status", ""), "exit status 0");
        auto fails = client.stream("process.Process/Start", json{{"process", {{"cmd", "/no/such/program"}}}});
        EXPECT_EQ(follow(*fails).error["message"], "exec: \"/no/such/program\": No such file or directory");
      }
    }));
  }
  for (auto& thread : threads) thread.get();
  EXPECT_TRUE(list().empty());
}

TEST_F(DaemonStartTest, ItLeavesTheMemoryOfTheDaemonAlone) {
  constexpr size_t kPages = 4096;
  void* mapping = mmap(nullptr, kPages * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(mapping, MAP_FAILED);
  ASSERT_EQ(madvise(mapping, kPages * kPage, MADV_NOHUGEPAGE), 0);
  char* memory = static_cast<char*>(mapping);
  const long before = touch(memory, kPages, 1);
  EXPECT_EQ(run("echo started").out, "started\n");
  const long after = touch(memory, kPages, 2);
  EXPECT_LT(after - before, static_cast<long>(kPages / 2)) << "its pages were write-protected";
  munmap(mapping, kPages * kPage);
}

}  // namespace
}  // namespace stasis::guest
