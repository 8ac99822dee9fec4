// Processes, end to end over HTTP: a daemon on a port of this machine, real programs.
#include <gmock/gmock.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "guest/daemon_fixture.h"

namespace stasis::guest {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::Not;

class DaemonProcessTest : public DaemonFixture {};

// Waits until the process has ended. What it held open closes a moment before that, so that its end may still be
// coming.
bool has_ended(int pid) {
  UniqueFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  if (!pidfd) {
    return errno == ESRCH;
  }
  pollfd ended{pidfd.get(), POLLIN, 0};
  return poll(&ended, 1, 10'000) == 1;
}

TEST_F(DaemonProcessTest, OutputAndExitStatus) {
  auto ok = run("echo out; echo err >&2");
  EXPECT_EQ(ok.out, "out\n");
  EXPECT_EQ(ok.err, "err\n");
  EXPECT_EQ(ok.end, json::parse(R"({"exited":true,"status":"exit status 0"})"));
  EXPECT_TRUE(ok.error.is_null());
  EXPECT_EQ(run("exit 7").end,
            json::parse(R"({"exitCode":7,"exited":true,"status":"exit status 7","error":"exit status 7"})"));
  EXPECT_EQ(run("kill -9 $$").end,
            json::parse(R"({"exitCode":-1,"status":"signal: killed","error":"signal: killed"})"));
}

TEST_F(DaemonProcessTest, TheFirstEventIsTheStart) {
  auto stream = start(bash("sleep 60"));
  EXPECT_EQ(stream->status(), 200);
  json event = stream->event();
  ASSERT_TRUE(event.contains("start"));
  EXPECT_GT(event["start"]["pid"].get<int>(), 1);
}

TEST_F(DaemonProcessTest, EnvironmentIsOnlyWhatIsMeant) {
  auto outcome = run("env | cut -d= -f1 | grep -vE '^(_|PWD|SHLVL|OLDPWD)$' | sort | tr '\\n' ' '; echo $OWN",
                     {{"process", {{"envs", {{"OWN", "va lue"}}}}}});
  EXPECT_EQ(outcome.out, "HOME LOGNAME OWN PATH USER va lue\n");
}

TEST_F(DaemonProcessTest, NothingOfTheDaemonIsInherited) {
  // ls itself opens one descriptor to list them.
  EXPECT_EQ(run("ls /proc/self/fd | wc -l").out, "4\n");
  EXPECT_THAT(run("grep SigBlk /proc/self/status").out, HasSubstr("SigBlk:\t0000000000000000"));
  EXPECT_THAT(run("grep SigIgn /proc/self/status").out, HasSubstr("SigIgn:\t0000000000000000"));
  EXPECT_EQ(run("read _ _ _ _ _ session _ < /proc/self/stat; [ $session = $$ ] && echo own session").out,
            "own session\n");
}

TEST_F(DaemonProcessTest, RunsAsTheNamedUserInItsHome) {
  auto outcome = run("id -un; id -u; echo $HOME $USER $LOGNAME", json::object(),
                     {{"Authorization", "Basic " + base64_encode("daemon:")}});
  EXPECT_THAT(outcome.out, HasSubstr("daemon\n1\n/usr/sbin daemon daemon\n"));
  auto unknown = run("true", json::object(), {{"Authorization", "Basic " + base64_encode("nobody-of-that-name:")}});
  EXPECT_EQ(unknown.error["code"], "unauthenticated");
}

TEST_F(DaemonProcessTest, BadStartsAreErrorsOfTheStream) {
  auto missing = run("pwd", {{"process", {{"cwd", "/no/such/place"}}}});
  EXPECT_EQ(missing.error,
            json::parse(R"({"code":"invalid_argument","message":"cwd '/no/such/place' does not exist"})"));
  EXPECT_EQ(run("pwd", {{"process", {{"cwd", "/tmp"}}}}).out, "/tmp\n");
  auto program = start({{"process", {{"cmd", "no-such-program"}}}});
  EXPECT_EQ(follow(*program).error["code"], "invalid_argument");
  auto not_executable = start({{"process", {{"cmd", "/etc/passwd"}}}});
  EXPECT_EQ(follow(*not_executable).error["code"], "invalid_argument");
  auto nothing = client_->stream("process.Process/Start", std::string());
  EXPECT_EQ(follow(*nothing).error["code"], "invalid_argument");
  EXPECT_TRUE(client_->rpc("process.Process/List", json::object()).json().empty());
}

TEST_F(DaemonProcessTest, StdinIsSentAndClosed) {
  auto stream = start(bash("cat; echo end", {{"stdin", true}}));
  int pid = stream->event()["start"]["pid"];
  json process = {{"pid", pid}};
  EXPECT_EQ(
      client_
          ->rpc("process.Process/SendInput", {{"process", process}, {"input", {{"stdin", base64_encode("hello\n")}}}})
          .body,
      "{}");
  EXPECT_EQ(base64_decode(stream->event()["data"]["stdout"].get<std::string>()), "hello\n");
  EXPECT_EQ(client_->rpc("process.Process/CloseStdin", {{"process", process}}).body, "{}");
  auto outcome = follow(*stream);
  EXPECT_EQ(outcome.out, "end\n");
  EXPECT_EQ(run("cat; echo none").out, "none\n");
}

TEST_F(DaemonProcessTest, InputStreams) {
  auto stream = start(bash("wc -c", {{"stdin", true}}));
  json process = {{"pid", stream->event()["start"]["pid"]}};
  std::string body = message_envelope({{"start", {{"process", process}}}});
  const std::string block(size_t{48} << 10, 'x');
  for (int i = 0; i < 20; ++i) body += message_envelope({{"data", {{"input", {{"stdin", base64_encode(block)}}}}}});
  auto input = client_->stream("process.Process/StreamInput", body);
  EXPECT_EQ(input->next(), json::object());
  EXPECT_EQ(input->next(), json::object());
  EXPECT_EQ(client_->rpc("process.Process/CloseStdin", {{"process", process}}).status, 200);
  EXPECT_EQ(follow(*stream).out, std::to_string(block.size() * 20) + "\n");
}

TEST_F(DaemonProcessTest, ListShowsWhatRuns) {
  auto stream = start(bash("sleep 60", {{"tag", "mine"}}));
  int pid = stream->event()["start"]["pid"];
  json list = client_->rpc("process.Process/List", json::object()).json();
  ASSERT_EQ(list["processes"].size(), 1U);
  EXPECT_EQ(list["processes"][0]["pid"], pid);
  EXPECT_EQ(list["processes"][0]["tag"], "mine");
  EXPECT_EQ(list["processes"][0]["config"]["cmd"], "/bin/bash");
}

TEST_F(DaemonProcessTest, SignalsReachTheWholeGroup) {
  auto stream = start(bash("sleep 61 & echo $!; wait"));
  int pid = stream->event()["start"]["pid"];
  int child = std::stoi(base64_decode(stream->event()["data"]["stdout"].get<std::string>()).value());
  EXPECT_EQ(
      client_->rpc("process.Process/SendSignal", {{"process", {{"pid", pid}}}, {"signal", "SIGNAL_SIGKILL"}}).body,
      "{}");
  EXPECT_EQ(follow(*stream).end["status"],
            "signal: killed");  // its output ended: the child, which held it open, is gone too
  EXPECT_TRUE(has_ended(child));
  auto again = client_->rpc("process.Process/SendSignal", {{"process", {{"pid", pid}}}, {"signal", "SIGNAL_SIGKILL"}});
  EXPECT_EQ(again.status, 404);
  EXPECT_EQ(again.json()["code"], "not_found");
  EXPECT_EQ(
      client_->rpc("process.Process/SendSignal", {{"process", {{"pid", 999999999}}}, {"signal", "SIGNAL_SIGKILL"}})
          .status,
      404);
}

TEST_F(DaemonProcessTest, TheDeadlineKills) {
  auto begin = std::chrono::steady_clock::now();
  auto outcome = run("echo before; sleep 60", json::object(), {{"Connect-Timeout-Ms", "300"}});
  EXPECT_EQ(outcome.out, "before\n");
  EXPECT_EQ(outcome.error["code"], "deadline_exceeded");
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));
  EXPECT_TRUE(client_->rpc("process.Process/List", json::object()).json().empty());
}

TEST_F(DaemonProcessTest, ADeadlineOfConnectOnlyEndsTheStream) {
  auto stream = start(bash("sleep 60"));
  int pid = stream->event()["start"]["pid"];
  auto connected =
      client_->stream("process.Process/Connect", json{{"process", {{"pid", pid}}}}, {{"Connect-Timeout-Ms", "100"}});
  EXPECT_EQ(follow(*connected).error["code"], "deadline_exceeded");
  EXPECT_EQ(client_->rpc("process.Process/List", json::object()).json()["processes"].size(), 1U);
}

TEST_F(DaemonProcessTest, LosingTheConnectionNeitherKillsNorLosesOutput) {
  auto stream = start(bash("read; for i in $(seq 1 20000); do echo line $i; done; read; echo done", {{"stdin", true}}));
  json process = {{"pid", stream->event()["start"]["pid"]}};
  stream->abort();
  auto go = [&] {
    return client_
        ->rpc("process.Process/SendInput", {{"process", process}, {"input", {{"stdin", base64_encode("\n")}}}})
        .status;
  };
  EXPECT_EQ(go(), 200);
  EXPECT_EQ(go(), 200);
  auto connected = client_->stream("process.Process/Connect", json{{"process", process}});
  auto outcome = follow(*connected);
  EXPECT_THAT(outcome.out, testing::StartsWith("line 1\nline 2\n"));
  EXPECT_THAT(outcome.out, testing::EndsWith("line 20000\ndone\n"));
  EXPECT_EQ(outcome.end["status"], "exit status 0");
}

TEST_F(DaemonProcessTest, AnEndedProcessCanBeConnectedTo) {
  auto stream = start(bash("echo bye; exit 3"));
  json process = {{"pid", stream->event()["start"]["pid"]}};
  follow(*stream);
  auto late = client_->stream("process.Process/Connect", json{{"process", process}});
  EXPECT_EQ(follow(*late).end["exitCode"], 3);
  auto unknown = client_->stream("process.Process/Connect", json{{"process", {{"pid", 999999999}}}});
  EXPECT_EQ(follow(*unknown).error["code"], "not_found");
}

TEST_F(DaemonProcessTest, ASlowReaderHoldsTheProcessBackAndGetsEverything) {
  auto stream = start(bash("head -c 30000000 /dev/zero | tr '\\0' x"));
  json process = {{"pid", stream->event()["start"]["pid"]}};
  EXPECT_EQ(client_->rpc("process.Process/List", json::object()).json()["processes"].size(), 1U);
  auto outcome = follow(*stream);
  EXPECT_EQ(outcome.out.size(), 30000000U);
  EXPECT_EQ(outcome.end["exited"], true);
}

TEST_F(DaemonProcessTest, ABackgroundChildDoesNotHoldTheStreamOpen) {
  auto outcome = run("sleep 300 & echo $!");
  EXPECT_EQ(outcome.end["status"], "exit status 0");
  EXPECT_EQ(kill(std::stoi(outcome.out), SIGKILL), 0);
}

TEST_F(DaemonProcessTest, Terminals) {
  auto stream = start(
      {{"process",
        {{"cmd", "/bin/bash"}, {"args", {"--norc", "--noprofile", "-i"}}, {"envs", {{"TERM", "dumb"}, {"PS1", ""}}}}},
       {"pty", {{"size", {{"cols", 100}, {"rows", 30}}}}}});
  json process = {{"pid", stream->event()["start"]["pid"]}};
  auto type = [&](const std::string& text) {
    auto answer =
        client_->rpc("process.Process/SendInput", {{"process", process}, {"input", {{"pty", base64_encode(text)}}}});
    EXPECT_EQ(answer.body, "{}");
  };
  std::string seen;
  auto wait_for = [&](const std::string& text) {
    while (seen.find(text) == std::string::npos) {
      json event = stream->event();
      if (!event.contains("data")) return false;
      seen += base64_decode(event["data"]["pty"].get<std::string>()).value_or("");
    }
    return true;
  };
  type("stty size; tty\n");
  EXPECT_TRUE(wait_for("30 100"));
  EXPECT_TRUE(wait_for("/dev/pts/"));
  EXPECT_EQ(
      client_->rpc("process.Process/Update", {{"process", process}, {"pty", {{"size", {{"cols", 120}, {"rows", 40}}}}}})
          .body,
      "{}");
  type("stty size\n");
  EXPECT_TRUE(wait_for("40 120"));
  EXPECT_EQ(client_->rpc("process.Process/CloseStdin", {{"process", process}}).status, 400);
  type("exit 4\n");
  EXPECT_EQ(follow(*stream).end["exitCode"], 4);
}

TEST_F(DaemonProcessTest, Keepalives) {
  auto stream = start(bash("sleep 60"), {{"Keepalive-Ping-Interval", "1"}});
  EXPECT_TRUE(stream->event().contains("start"));
  EXPECT_EQ(stream->event(), json::parse(R"({"keepalive":{}})"));
}

TEST_F(DaemonProcessTest, UnknownCallsAndForms) {
  EXPECT_EQ(client_->rpc("process.Process/Nonsense", json::object()).status, 404);
  EXPECT_EQ(client_->rpc("other.Service/Call", json::object()).status, 404);
  EXPECT_EQ(client_->request(http::verb::post, "/process.Process/List", "{}", {{"Content-Type", "text/plain"}}).status,
            415);
  EXPECT_EQ(client_->request(http::verb::get, "/process.Process/List").status, 405);
  auto bad = client_->request(http::verb::post, "/process.Process/List", "[", {{"Content-Type", "application/json"}});
  EXPECT_EQ(bad.status, 400);
  EXPECT_EQ(bad.json()["code"], "invalid_argument");
  auto named = client_->rpc("process.Process/SendSignal", {{"process", json::object()}});
  EXPECT_EQ(named.json()["code"], "invalid_argument");
}

}  // namespace
}  // namespace stasis::guest
