// exec: the command's output and exit status as ours, its input, and what breaks a stream.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <future>
#include <sstream>
#include <utility>

#include "base/base64.h"
#include "cli/testing/call.h"

namespace stasis::cli {
namespace {

using nlohmann::json;
using testing::HasSubstr;

FakeReply stream(const std::vector<json>& messages) {
  FakeReply reply;
  for (const json& message : messages) reply.messages.push_back(message.dump());
  return reply;
}

json output(const std::string& type, const std::string& bytes) {
  return {{"type", type}, {"data", base64_encode(bytes)}};
}

TEST(Exec, StreamsOutputAndExitsAsTheCommandDid) {
  const Call call(always(stream({{{"type", "started"}, {"pid", 7}},
                                 output("stdout", std::string("a\0b\n", 4)),
                                 output("stderr", "oops\n"),
                                 output("stdout", "c"),
                                 {{"type", "exited"}, {"exit_code", 42}, {"status", "exited"}}})),
                  {"exec", "--user", "root", "--cwd", "/tmp", "--env", "A=1", "--timeout", "2.5", kId, "--", "sh", "-c",
                   "echo -- x"});
  EXPECT_EQ(call.status, 42);
  EXPECT_EQ(call.out, std::string("a\0b\nc", 5));
  EXPECT_EQ(call.err, "oops\n");
  ASSERT_EQ(call.requests.size(), 1U);
  EXPECT_EQ(call.requests[0].method, "WEBSOCKET");
  EXPECT_EQ(call.requests[0].target, "/v1/sandboxes/" + kId + "/exec/stream");
  EXPECT_EQ(call.requests[0].headers.at("authorization"), "Bearer e2b_token");
  EXPECT_EQ(json::parse(call.requests[0].body), (json{{"command", {"sh", "-c", "echo -- x"}},
                                                      {"user", "root"},
                                                      {"cwd", "/tmp"},
                                                      {"env", {{"A", "1"}}},
                                                      {"timeout_ms", 2500}}));
}

TEST(Exec, TheCommandIsVerbatimWithAndWithoutDashes) {
  const auto handler = always(stream({{{"type", "exited"}, {"exit_code", 0}, {"status", "exited"}}}));
  const json expected = {"ls", "-l", "--json", "--", "-x"};
  const Call dashes(handler, {"exec", kId, "--", "ls", "-l", "--json", "--", "-x"});
  EXPECT_EQ(json::parse(dashes.requests.at(0).body)["command"], expected);
  const Call plain(handler, {"exec", kId, "ls", "-l", "--json"});
  EXPECT_EQ(json::parse(plain.requests.at(0).body)["command"], (json{"ls", "-l", "--json"}));
  EXPECT_EQ(Call(handler, {"exec", kId, "--"}).status, 2);
  EXPECT_EQ(Call(handler, {"exec", kId}).status, 2);
}

TEST(Exec, ASignalBecomesAShellsStatus) {
  const auto ended = [](const std::string& status) {
    return Call(always(stream({{{"type", "exited"}, {"exit_code", -1}, {"status", status}}})), {"exec", kId, "--", "x"})
        .status;
  };
  EXPECT_EQ(ended("signal: killed"), 137);
  EXPECT_EQ(ended("signal: segmentation fault (core dumped)"), 139);
  EXPECT_EQ(ended("signal: terminated"), 143);
  EXPECT_EQ(ended("who knows"), 255);
}

TEST(Exec, ForwardsStandardInputOnlyWhenItHasData) {
  const auto handler = always(stream({{{"type", "exited"}, {"exit_code", 0}, {"status", "exited"}}}));
  Setting piped;
  piped.input = "print(42)\n";
  EXPECT_EQ(json::parse(Call(handler, {"exec", kId, "--", "python3"}, piped).requests.at(0).body)["stdin"],
            "print(42)\n");
  EXPECT_FALSE(
      json::parse(Call(handler, {"exec", "-n", kId, "--", "cat"}, piped).requests.at(0).body).contains("stdin"));
  EXPECT_FALSE(json::parse(Call(handler, {"exec", kId, "--", "cat"}).requests.at(0).body).contains("stdin"));
}

// Ends when somebody was told that it is waited for.
class LateInput : public std::streambuf {
 public:
  class Errors : public std::stringbuf {
   public:
    explicit Errors(std::promise<void>& told) : told_(told) {}

   protected:
    int sync() override {
      if (str().find("--no-stdin") != std::string::npos && !std::exchange(done_, true)) told_.set_value();
      return 0;
    }

   private:
    std::promise<void>& told_;
    bool done_ = false;
  };
  Errors& errors() { return errors_; }

 protected:
  int_type underflow() override {
    waited_.wait_for(std::chrono::seconds(20));
    return traits_type::eof();
  }

 private:
  std::promise<void> told_;
  std::shared_future<void> waited_ = told_.get_future().share();
  Errors errors_{told_};
};

TEST(Exec, SaysThatItWaitsForAnInputThatDoesNotEnd) {
  const auto handler = always(stream({{{"type", "exited"}, {"exit_code", 0}, {"status", "exited"}}}));
  LateInput input;
  Setting silent;
  silent.input_from = &input;
  silent.errors_to = &input.errors();
  const Call call(handler, {"exec", kId, "--", "true"}, silent);
  EXPECT_EQ(call.status, 0);
  EXPECT_EQ(input.errors().str(), "waiting for standard input to end; --no-stdin leaves it alone\n");
}

TEST(Exec, RefusesInputThatItCannotPassOnUnchanged) {
  Setting large;
  large.input = std::string(1024 * 1024 + 1, 'x');
  const Call too_large(always({}), {"exec", kId, "--", "cat"}, large);
  EXPECT_EQ(too_large.status, 2);
  EXPECT_THAT(too_large.err, HasSubstr("1 MiB"));
  Setting binary;
  binary.input = "\xff\xfe";
  const Call not_text(always({}), {"exec", kId, "--", "cat"}, binary);
  EXPECT_EQ(not_text.status, 1);
  EXPECT_TRUE(not_text.requests.empty());
  EXPECT_THAT(not_text.err, HasSubstr("not UTF-8"));
}

TEST(Exec, ErrorsOfTheStreamAndOfTheUpgrade) {
  const Call in_stream(
      always(stream({{{"type", "error"}, {"error", {{"code", "deadline_exceeded"}, {"message", "time is up"}}}}})),
      {"exec", kId, "--", "x"});
  EXPECT_EQ(in_stream.status, 1);
  EXPECT_EQ(json::parse(in_stream.err)["error"]["code"], "deadline_exceeded");
  FakeReply cut = stream({output("stdout", "half")});
  cut.cut_short = true;
  const Call broken(always(cut), {"exec", kId, "--", "x"});
  EXPECT_EQ(broken.status, 1);
  EXPECT_EQ(broken.out, "half");
  for (const json& bad : {json{{"type", "stdout"}, {"data", "%%"}}, json{{"type", "exited"}}, json("text")}) {
    EXPECT_EQ(Call(always(stream({bad})), {"exec", kId, "--", "x"}).status, 1) << bad;
  }
}

TEST(Exec, JsonCollectsEverythingInOneDocument) {
  const json answer = {
      {"exit_code", 3}, {"status", "exited"}, {"stdout", "hi\n"}, {"stderr", ""}, {"encoding", "utf-8"}};
  const Call call(always({.body = answer.dump()}), {"exec", "--json", kId, "--", "x"});
  EXPECT_EQ(call.status, 3);
  EXPECT_EQ(call.requests.at(0).target, "/v1/sandboxes/" + kId + "/exec");
  EXPECT_EQ(json::parse(call.out), answer);
  EXPECT_EQ(Call(always({.body = "{}"}), {"exec", "--json", kId, "--", "x"}).status, 1);  // no exit code is no success
}

}  // namespace
}  // namespace stasis::cli
