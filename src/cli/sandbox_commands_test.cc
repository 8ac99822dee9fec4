// create, ls, pause, resume, rollback, rm: what they ask for, and what they show.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "cli/testing/call.h"

namespace stasis::cli {
namespace {

using nlohmann::json;
using testing::HasSubstr;

json sandbox(const std::string& id, const std::string& state = "running") {
  return {{"id", id},
          {"template", "base"},
          {"state", state},
          {"vcpus", 1},
          {"memory_mb", 256},
          {"created_at", "2026-11-24T22:31:05Z"},
          {"times", {{"daemon_answered_ms", 812.5}}}};
}

TEST(Create, AsksOnlyForWhatWasSaid) {
  const Call call(always({.status = 201, .body = sandbox(kId).dump()}), {"create"});
  EXPECT_EQ(call.status, 0);
  ASSERT_EQ(call.requests.size(), 1U);
  EXPECT_EQ(call.requests[0].method, "POST");
  EXPECT_EQ(call.requests[0].target, "/v1/sandboxes");
  EXPECT_EQ(json::parse(call.requests[0].body), json::object());
  EXPECT_EQ(call.requests[0].headers.at("authorization"), "Bearer e2b_token");
}

TEST(Create, PassesEveryOptionOn) {
  const Call call(always({.status = 201, .body = sandbox(kId).dump()}),
                  {"create", "--template", "warm", "--vcpus", "2", "--memory", "512", "--disk", "2048", "--timeout",
                   "60", "--env", "A=1", "--env", "B=x=y", "--metadata", "job=42", "--idempotency-key", "k1"});
  EXPECT_EQ(call.status, 0);
  EXPECT_EQ(json::parse(call.requests.at(0).body), (json{{"template", "warm"},
                                                         {"vcpus", 2},
                                                         {"memory_mb", 512},
                                                         {"disk_mb", 2048},
                                                         {"timeout_sec", 60},
                                                         {"env", {{"A", "1"}, {"B", "x=y"}}},
                                                         {"metadata", {{"job", "42"}}}}));
  EXPECT_EQ(call.requests.at(0).headers.at("idempotency-key"), "k1");
}

TEST(Create, ShowsADocumentWhenPipedALineOnATerminalAndTheIdWhenQuiet) {
  const auto handler = always({.status = 201, .body = sandbox(kId).dump()});
  EXPECT_EQ(json::parse(Call(handler, {"create"}).out), sandbox(kId));
  EXPECT_EQ(Call(handler, {"create"}, kTerminal).out, kId + " is running: the guest daemon answered after 812 ms\n");
  EXPECT_EQ(json::parse(Call(handler, {"create", "--json"}, kTerminal).out), sandbox(kId));
  EXPECT_EQ(Call(handler, {"create", "-q"}).out, kId + "\n");
}

TEST(Create, RefusesAPairWithoutAnEqualsSignBeforeItAsks) {
  const Call call(always({}), {"create", "--env", "A"});
  EXPECT_EQ(call.status, 2);
  EXPECT_TRUE(call.requests.empty());
  EXPECT_EQ(json::parse(call.err)["error"]["code"], "invalid_argument");
}

TEST(List, FollowsThePagesAndHidesStoppedSandboxes) {
  const auto handler = [](const FakeRequest& request) -> FakeReply {
    if (request.target.find("page_token=next%2F1") != std::string::npos) {
      return {.body = json{{"sandboxes", {sandbox("b", "paused")}}, {"next_page_token", nullptr}}.dump()};
    }
    return {.body = json{{"sandboxes", {sandbox("a"), sandbox("s", "stopped")}}, {"next_page_token", "next/1"}}.dump()};
  };
  const Call call(handler, {"ls"});
  EXPECT_EQ(call.status, 0);
  EXPECT_EQ(json::parse(call.out), (json{{"sandboxes", {sandbox("a"), sandbox("b", "paused")}}}));
  EXPECT_EQ(Call(handler, {"ls", "-q", "--all"}).out, "a\ns\nb\n");
  const Call table(handler, {"ls"}, kTerminal);
  EXPECT_THAT(table.out, testing::MatchesRegex("ID  TEMPLATE  STATE    VCPUS   MEMORY +AGE  REASON\n"
                                               "a   base      running      1  256 MiB.*\nb   base      paused .*\n"));
}

TEST(List, PassesFiltersOn) {
  const Call call(always({.body = R"({"sandboxes":[]})"}),
                  {"ls", "--state", "paused,error", "--template", "warm", "--metadata", "job=4 2"}, kTerminal);
  EXPECT_EQ(call.status, 0);
  EXPECT_EQ(call.requests.at(0).target, "/v1/sandboxes?state=paused%2Cerror&template=warm&metadata.job=4%202");
  EXPECT_THAT(call.out, HasSubstr("no sandboxes"));
}

TEST(PauseAndResume, TakeSeveralSandboxesAndGoOnAfterAnError) {
  const auto handler = [](const FakeRequest& request) {
    return request.target == "/v1/sandboxes/b/pause" ? error_reply(409, "failed_precondition")
                                                     : FakeReply{.body = sandbox("x", "paused").dump()};
  };
  const Call call(handler, {"pause", "a", "b", "c"});
  EXPECT_EQ(call.status, 1);
  EXPECT_EQ(call.requests.size(), 3U);
  EXPECT_EQ(std::count(call.out.begin(), call.out.end(), '\n'), 2);
  EXPECT_THAT(call.err, HasSubstr("failed_precondition"));
}

TEST(PauseAndResume, SayWhatWasStoredAndLoaded) {
  json paused = sandbox(kId, "paused");
  paused["last_snapshot"] = {{"stopped_ms", 120.0},
                             {"memory", {{"generation", 1}, {"stored_bytes", 1'258'291}}},
                             {"disk", {{"generation", 1}, {"stored_bytes", 65'536}}}};
  EXPECT_EQ(
      Call(always({.body = paused.dump()}), {"pause", kId}, kTerminal).out,
      kId +
          " is paused: stored memory 1.2 MiB (generation 1), disk 64 KiB (generation 1); the guest stood for 120 ms\n");
  json resumed = sandbox(kId);
  resumed["restore"] = {
      {"method", "uffd"}, {"total_pages", 65'536}, {"pages_by_fault", 300}, {"pages_prefetched", 212}};
  const Call call(always({.body = resumed.dump()}), {"resume", "--timeout", "60", kId}, kTerminal);
  EXPECT_EQ(
      call.out,
      kId +
          " is running: the guest daemon answered after 812 ms; 512 of 65536 pages loaded (2 MiB of 256 MiB, uffd)\n");
  EXPECT_EQ(json::parse(call.requests.at(0).body), (json{{"timeout_sec", 60}}));
  resumed["restore"]["method"] = "mapped";
  resumed["restore"]["resident_pages"] = 1024;
  const Call mapped(always({.body = resumed.dump()}), {"resume", "--restore", "mapped", kId}, kTerminal);
  EXPECT_THAT(mapped.out, HasSubstr("1024 of 65536 pages loaded (4 MiB of 256 MiB, mapped)"));
  EXPECT_EQ(json::parse(mapped.requests.at(0).body), (json{{"restore", "mapped"}}));
  resumed["restore"]["method"] = "partly";
  EXPECT_THAT(Call(always({.body = resumed.dump()}), {"resume", kId}, kTerminal).out,
              HasSubstr("1024 of 65536 pages loaded (4 MiB of 256 MiB, partly)"))
      << "of both parts";
  const Call loaded(always({.body = resumed.dump()}), {"resume", "--load", "100", kId}, kTerminal);
  EXPECT_EQ(json::parse(loaded.requests.at(0).body), (json{{"background_load_mib_per_s", 100}}));
  EXPECT_EQ(Call(always({}), {"resume", "--load", "0", kId}).status, 2);
}

TEST(Rollback, NamesTheSnapshotAndSaysWhatWasLoaded) {
  json restored = sandbox(kId);
  restored["restore"] = {{"method", "uffd"}, {"total_pages", 65'536}, {"pages_by_fault", 0}, {"pages_prefetched", 512}};
  const Call call(always({.body = restored.dump()}),
                  {"rollback", kId, "before", "--timeout", "60", "--restore", "uffd"}, kTerminal);
  EXPECT_EQ(call.requests.at(0).target, "/v1/sandboxes/" + kId + "/rollback");
  EXPECT_EQ(json::parse(call.requests.at(0).body),
            (json{{"snapshot", "before"}, {"timeout_sec", 60}, {"restore", "uffd"}}));
  EXPECT_THAT(call.out, HasSubstr(kId + " is running"));
  EXPECT_THAT(call.out, HasSubstr("512 of 65536 pages loaded"));
  EXPECT_EQ(Call(always({}), {"rollback", kId}).status, 2);
}

TEST(Remove, TakesIdsOrAllButNotBoth) {
  const auto handler = [](const FakeRequest& request) -> FakeReply {
    if (request.method == "DELETE") return {.status = 204, .body = ""};
    return {.body = json{{"sandboxes", {sandbox("a"), sandbox("b", "error")}}}.dump()};
  };
  const Call all(handler, {"rm", "--all"});
  EXPECT_EQ(all.status, 0);
  ASSERT_EQ(all.requests.size(), 3U);
  EXPECT_EQ(all.requests[2].target, "/v1/sandboxes/b");
  EXPECT_EQ(all.out, "{\"id\":\"a\",\"removed\":true}\n{\"id\":\"b\",\"removed\":true}\n");
  EXPECT_EQ(Call(handler, {"rm"}).status, 2);
  EXPECT_EQ(Call(handler, {"rm", "--all", "a"}).status, 2);
}

TEST(Remove, AnIdCannotBecomeAnotherPath) {
  const Call call(always({.status = 404, .body = "{}"}), {"rm", "../snapshots/warm?x"});
  EXPECT_EQ(call.requests.at(0).target, "/v1/sandboxes/..%2Fsnapshots%2Fwarm%3Fx");
}

}  // namespace
}  // namespace stasis::cli
