// /v1/sandboxes over real sockets, with a scripted agent behind real gRPC.
#include <gmock/gmock.h>

#include <set>

#include "base/clock.h"
#include "server/testing/harness.h"

namespace stasis::server::testing {
namespace {

using ::testing::HasSubstr;

class RestSandboxes : public ServerTest {};

TEST_F(RestSandboxes, CreateGetListDestroy) {
  const Answer created = client().post(
      "/v1/sandboxes",
      {{"metadata", {{"team", "x"}}}, {"env", {{"A", "1"}}}, {"vcpus", 2}, {"memory_mb", 512}, {"timeout_sec", 60}});
  ASSERT_EQ(created.status, 201u) << created.text;
  const std::string id = created.body["id"];
  EXPECT_EQ(id.size(), 20u);
  EXPECT_EQ(created.body["state"], "running");
  EXPECT_EQ(created.body["template"], "base");
  EXPECT_EQ(created.body["vcpus"], 2);
  EXPECT_EQ(created.body["memory_mb"], 512);
  EXPECT_EQ(created.body["disk_mb"], kImageDiskMb);
  EXPECT_EQ(created.body["metadata"]["team"], "x");
  EXPECT_EQ(created.body["times"]["daemon_answered_ms"], 2.5);
  EXPECT_TRUE(created.body["restore"].is_null());
  EXPECT_TRUE(created.body["deadline"].is_string());
  agent_->edit([&](auto& sandboxes, auto&) {
    EXPECT_EQ(sandboxes.at(id).hostname, id);
    EXPECT_EQ(sandboxes.at(id).env.at("A"), "1");
    EXPECT_EQ(sandboxes.at(id).access_token.size(), 40u);
  });
  EXPECT_EQ(sandbox(id), created.body);
  EXPECT_EQ(client().get("/v1/sandboxes").body["sandboxes"].size(), 1u);

  EXPECT_EQ(client().remove(path(id)).status, 204u);
  EXPECT_FALSE(agent_->has_sandbox(id));
  EXPECT_EQ(client().get("/v1/sandboxes").body["sandboxes"].size(), 0u);
  EXPECT_EQ(client().get("/v1/sandboxes?state=stopped").body["sandboxes"].size(), 1u);
  EXPECT_EQ(state(id), "stopped");
  EXPECT_EQ(reason(id), "destroyed");
  EXPECT_EQ(client().remove(path(id)).status, 204u);
}

TEST_F(RestSandboxes, PauseAndResumeKeepTheIdentity) {
  const std::string id = create({{"env", {{"A", "1"}}}, {"timeout_sec", 100}});
  std::string token;
  agent_->edit([&](auto& sandboxes, auto&) { token = sandboxes.at(id).access_token; });
  const Answer paused = pause(id);
  ASSERT_EQ(paused.status, 200u) << paused.text;
  EXPECT_EQ(paused.body["state"], "paused");
  EXPECT_EQ(paused.body["last_snapshot"]["stored_bytes"], 8192);
  EXPECT_FALSE(paused.body["last_snapshot"].contains("live")) << "of a snapshot that the sandbox goes on after";
  EXPECT_TRUE(paused.body["deadline"].is_null());
  EXPECT_FALSE(agent_->has_sandbox(id));
  const std::string first = paused.body["snapshot_id"];
  EXPECT_TRUE(agent_->has_snapshot(first));

  EXPECT_EQ(client().post(path(id, "/resume"), {{"restore", "teleport"}}).status, 400u);
  const Answer resumed = client().post(path(id, "/resume"), {{"timeout_sec", 500}, {"restore", "mapped"}});
  ASSERT_EQ(resumed.status, 200u) << resumed.text;
  EXPECT_EQ(resumed.body["restore"]["method"], "mapped");
  EXPECT_EQ(resumed.body["state"], "running");
  EXPECT_EQ(resumed.body["restore"]["pages_by_fault"], 100);
  EXPECT_EQ(resumed.body["restore"]["write_faults"], 40);
  EXPECT_EQ(resumed.body["restore"]["spare"], true);
  EXPECT_EQ(resumed.body["restore"]["fault_p50_us"], 8);
  EXPECT_EQ(resumed.body["timeout_sec"], 500);
  EXPECT_TRUE(agent_->has_snapshot(first)) << "the snapshot must outlive the resume";
  agent_->edit([&](auto& sandboxes, auto&) {
    EXPECT_EQ(sandboxes.at(id).access_token, token);
    EXPECT_EQ(sandboxes.at(id).hostname, id);
    EXPECT_EQ(sandboxes.at(id).env.at("A"), "1");
    EXPECT_GT(sandboxes.at(id).deadline_ms, unix_time_ms() + 400'000);
  });

  const Answer again = pause(id);
  EXPECT_NE(again.body["snapshot_id"], first);
  EXPECT_EQ(client().post(path(id, "/resume"), {{"background_load_mib_per_s", 65'537}}).status, 400u);
  ASSERT_EQ(client().post(path(id, "/resume"), {{"background_load_mib_per_s", 7}}).status, 200u);
  agent_->edit([&](auto& sandboxes, auto&) { EXPECT_EQ(sandboxes.at(id).load_mib_per_s, 7u); });
  ASSERT_EQ(pause(id).status, 200u);
  EXPECT_FALSE(agent_->has_snapshot(first)) << "the pause before may go only when the new one is there";
  EXPECT_EQ(client().remove(path(id)).status, 204u);
  EXPECT_TRUE(agent_->snapshots().empty());
}

TEST_F(RestSandboxes, ATraceTellsHowItsMemoryCame) {
  const std::string id = create();
  const Answer answer = client().get(path(id, "/trace"));
  ASSERT_EQ(answer.status, 200u) << answer.text;
  EXPECT_EQ(answer.body["method"], "uffd");
  EXPECT_EQ(answer.body["faults"],
            Json::array({{{"kind", "read"}, {"cause", "absent"}, {"outcome", "copied"}, {"count", 3}}}));
  EXPECT_EQ(answer.body["fault_times"], Json({0, 0, 2, 0, 1}));
  EXPECT_EQ(answer.body["pages"], Json::array({{{"how", "around"}, {"zeros", false}, {"pages", 45}}}));
  EXPECT_EQ(answer.body["parked"], 2);
  EXPECT_EQ(answer.body["fetching_frames"], 5);
  EXPECT_EQ(answer.body["prefetch_left_bytes"], 12'288);
  EXPECT_EQ(answer.body["largest_batch"], 6);
  EXPECT_EQ(answer.body["sources"][0]["layer_id"], Json());
  EXPECT_EQ(answer.body["sources"][1]["layer_id"], testing::kImageId);
  EXPECT_EQ(
      answer.body["events"],
      Json::array({{{"when_us", 1500}, {"offset", 1 << 20}, {"length", 4096}, {"how", "fault"}, {"zeros", true}}}));
  EXPECT_EQ(answer.body["left_out"], 2);
  EXPECT_EQ(answer.body["load"],
            Json({{"state", "ended"}, {"complete", false}, {"left_bytes", 4096}, {"error", "damaged"}}));
  EXPECT_EQ(answer.body["spare"], true);
  ASSERT_EQ(pause(id).status, 200u);
  EXPECT_EQ(client().get(path(id, "/trace")).status, 409u);
  EXPECT_EQ(client().get(path("nosuchsandbox0000000", "/trace")).status, 404u);
}

TEST_F(RestSandboxes, AFailedPauseLeavesItRunning) {
  const std::string id = create();
  agent_->fail_calls("PauseSandbox", {Code::kResourceExhausted, "disk full", "free some space"});
  const Answer failed = pause(id);
  EXPECT_EQ(failed.status, 507u);
  EXPECT_EQ(failed.error_code(), "resource_exhausted");
  EXPECT_THAT(std::string(failed.body["error"]["message"]), HasSubstr("disk full"));
  EXPECT_EQ(failed.body["error"]["remedy"], "free some space");
  EXPECT_EQ(state(id), "running");
  EXPECT_THAT(reason(id), HasSubstr("disk full"));
  EXPECT_EQ(pause(id).status, 200u);
  EXPECT_EQ(reason(id), "");
}

TEST_F(RestSandboxes, AFailedResumeLeavesItPaused) {
  const std::string id = create();
  const std::string snapshot = pause(id).body["snapshot_id"];
  agent_->fail_calls("ResumeSandbox", {Code::kDataLoss, "layer damaged", ""});
  EXPECT_EQ(resume(id).status, 500u);
  EXPECT_EQ(state(id), "paused");
  EXPECT_THAT(reason(id), HasSubstr("layer damaged"));
  EXPECT_TRUE(agent_->has_snapshot(snapshot));
  EXPECT_EQ(resume(id).status, 200u);
}

TEST_F(RestSandboxes, AFailedCreateLeavesNothing) {
  agent_->fail_calls("CreateSandbox", {Code::kDeadlineExceeded, "the guest daemon did not answer", ""});
  const Answer failed = client().post("/v1/sandboxes");
  EXPECT_EQ(failed.status, 504u);
  agent_->fail_calls("CreateSandbox", {Code::kInternal, "qemu ended", ""});
  EXPECT_EQ(client().post("/v1/sandboxes").status, 500u);
  EXPECT_EQ(client().get("/v1/sandboxes").body["sandboxes"].size(), 0u);
  EXPECT_EQ(agent_->sandbox_count(), 0u);
  const Json stopped = client().get("/v1/sandboxes?state=stopped").body["sandboxes"];
  ASSERT_EQ(stopped.size(), 2u);
  EXPECT_THAT(std::string(stopped[0]["reason"]), HasSubstr("create failed: qemu ended"));
}

TEST_F(RestSandboxes, WrongStatesAreToldWithTheStateAndARemedy) {
  const std::string id = create();
  const Answer not_paused = resume(id);
  EXPECT_EQ(not_paused.status, 409u);
  EXPECT_EQ(not_paused.error_code(), "failed_precondition");
  EXPECT_THAT(std::string(not_paused.body["error"]["message"]), HasSubstr("is running"));
  ASSERT_EQ(pause(id).status, 200u);
  for (const char* rest : {"/pause", "/ping", "/exec", "/files/list"}) {
    Json body = Json::object();
    if (std::string(rest) == "/exec") body = {{"command", "true"}};
    if (std::string(rest) == "/files/list") body = {{"path", "/"}};
    const Answer answer = client().post(path(id, rest), body);
    EXPECT_EQ(answer.status, 409u) << rest;
    EXPECT_THAT(std::string(answer.body["error"]["message"]), HasSubstr("is paused")) << rest;
    EXPECT_EQ(answer.body["error"]["remedy"], "resume it first") << rest;
  }
  ASSERT_EQ(client().remove(path(id)).status, 204u);
  EXPECT_EQ(pause(id).status, 409u);
  EXPECT_EQ(resume(id).status, 409u);
}

TEST_F(RestSandboxes, UnknownIdsAreNotFound) {
  for (const std::string id :
       {"nosuchsandbox0000000", "..", "a%2Fb", "..%2F..%2Fetc", "%F0%9F%98%80", "'%20OR%201=1"}) {
    EXPECT_EQ(client().get(path(id)).status, 404u) << id;
    EXPECT_EQ(client().remove(path(id)).status, 404u) << id;
    for (const char* rest : {"/pause", "/resume", "/ping"}) EXPECT_EQ(client().post(path(id, rest)).status, 404u) << id;
    EXPECT_EQ(client().post(path(id, "/exec"), {{"command", {"x"}}}).status, 404u) << id;
    EXPECT_EQ(client().post(path(id, "/files/read"), {{"path", "/x"}}).status, 404u) << id;
  }
}

TEST_F(RestSandboxes, BadRequestsAreRefusedBeforeAnythingIsMade) {
  const std::vector<Json> bad = {{{"vcpus", 0}},
                                 {{"restore", "teleport"}},
                                 {{"cold", true}, {"restore", "mapped"}},
                                 {{"cold", true}, {"background_load_mib_per_s", 1}},
                                 {{"background_load_mib_per_s", "fast"}},
                                 {{"vcpus", 33}},
                                 {{"memory_mb", 127}},
                                 {{"memory_mb", 65537}},
                                 {{"memory_mb", "256"}},
                                 {{"disk_mb", kImageDiskMb - 1}},
                                 {{"disk_mb", 1 << 21}},
                                 {{"timeout_sec", -1}},
                                 {{"timeout_sec", 4000000000}},
                                 {{"metadata", {{"a", 1}}}},
                                 {{"metadata", "x"}},
                                 {{"env", {{"A=B", "1"}}}},
                                 {{"env", {{"", "1"}}}},
                                 {{"env", {{"A", std::string("a\0b", 3)}}}},
                                 {{"template", 7}},
                                 {{"color", "red"}}};
  for (const Json& body : bad) {
    const Answer answer = client().post("/v1/sandboxes", body);
    EXPECT_EQ(answer.status, 400u) << body;
    EXPECT_EQ(answer.error_code(), "invalid_argument") << body;
  }
  EXPECT_EQ(client().post("/v1/sandboxes", {{"template", "nosuch"}}).status, 404u);
  EXPECT_EQ(client().post("/v1/sandboxes", {{"template", "../../etc"}}).status, 404u);
  EXPECT_EQ(agent_->calls("CreateSandbox"), 0);
  EXPECT_EQ(client().get("/v1/sandboxes?state=stopped,error,starting").body["sandboxes"].size(), 0u);
}

TEST_F(RestSandboxes, AnIdempotencyKeyMakesOneSandbox) {
  const Headers key = {{"Idempotency-Key", "order-1"}};
  const Answer first = client().post("/v1/sandboxes", {{"memory_mb", 512}}, key);
  ASSERT_EQ(first.status, 201u);
  const Answer second = client().post("/v1/sandboxes", {{"memory_mb", 512}}, key);
  EXPECT_EQ(second.status, 200u);
  EXPECT_EQ(second.body["id"], first.body["id"]);
  EXPECT_EQ(agent_->sandbox_count(), 1u);
  const Answer other = client().post("/v1/sandboxes", {{"memory_mb", 1024}}, key);
  EXPECT_EQ(other.status, 422u);
  EXPECT_EQ(other.error_code(), "invalid_argument");
  EXPECT_EQ(client().post("/v1/sandboxes", {}, {{"Idempotency-Key", std::string(256, 'k')}}).status, 400u);
}

TEST_F(RestSandboxes, AnIdempotencyKeyInProgressIsTold) {
  agent_->hold("CreateSandbox");
  const Headers key = {{"Idempotency-Key", "k"}};
  std::thread first([&] { EXPECT_EQ(client().post("/v1/sandboxes", {}, key).status, 201u); });
  ASSERT_TRUE(agent_->wait_held("CreateSandbox"));
  const Answer second = client().post("/v1/sandboxes", {}, key);
  EXPECT_EQ(second.status, 409u);
  EXPECT_EQ(second.error_code(), "aborted");
  agent_->release("CreateSandbox");
  first.join();
  EXPECT_EQ(client().post("/v1/sandboxes", {}, key).status, 200u);
  EXPECT_EQ(agent_->sandbox_count(), 1u);
}

TEST_F(RestSandboxes, AKeyWhoseCreateFailedMayTryAgain) {
  const Headers key = {{"Idempotency-Key", "k"}};
  agent_->fail_calls("CreateSandbox", {Code::kInternal, "no luck", ""});
  EXPECT_EQ(client().post("/v1/sandboxes", {}, key).status, 500u);
  EXPECT_EQ(client().post("/v1/sandboxes", {}, key).status, 201u);
  EXPECT_EQ(client().post("/v1/sandboxes", {}, key).status, 200u);
}

TEST_F(RestSandboxes, ListsInPages) {
  std::set<std::string> ids;
  for (int i = 0; i < 5; ++i) ids.insert(create({{"metadata", {{"even", i % 2 == 0 ? "yes" : "no"}}}}));
  std::set<std::string> seen;
  std::string token;
  int pages = 0;
  do {
    const Json page = client().get("/v1/sandboxes?limit=2" + (token.empty() ? "" : "&page_token=" + token)).body;
    for (const Json& one : page["sandboxes"]) seen.insert(one["id"]);
    token = page["next_page_token"].is_null() ? "" : page["next_page_token"];
    ++pages;
  } while (!token.empty() && pages < 10);
  EXPECT_EQ(pages, 3);
  EXPECT_EQ(seen, ids);
  EXPECT_EQ(client().get("/v1/sandboxes?metadata.even=yes").body["sandboxes"].size(), 3u);
  EXPECT_EQ(client().get("/v1/sandboxes?template=base&state=running,paused").body["sandboxes"].size(), 5u);
  for (const char* bad :
       {"limit=0", "limit=1001", "limit=x", "page_token=x", "state=frozen", "state=", "color=red", "metadata.=x"}) {
    EXPECT_EQ(client().get(std::string("/v1/sandboxes?") + bad).status, 400u) << bad;
  }
}

TEST_F(RestSandboxes, PingMovesTheDeadline) {
  const std::string id = create();
  const Answer plain = client().post(path(id, "/ping"));
  EXPECT_EQ(plain.status, 200u);
  EXPECT_EQ(plain.body["round_trip_us"], 321);
  EXPECT_TRUE(plain.body["deadline"].is_null());
  const Answer moved = client().post(path(id, "/ping"), {{"timeout_sec", 77}});
  EXPECT_TRUE(moved.body["deadline"].is_string());
  EXPECT_EQ(sandbox(id)["deadline"], moved.body["deadline"]);
  EXPECT_EQ(sandbox(id)["timeout_sec"], 77);
}

TEST_F(RestSandboxes, WithoutAnAgentItAnswersAndRecovers) {
  const std::string id = create();
  agent_->stop();
  // Until the server has noticed, a request that breaks on its way may have been heard: the sandbox's state waits then.
  ASSERT_TRUE(eventually([&] { return client().get("/v1/store/usage").status == 503; }));
  EXPECT_EQ(client().get("/healthz").status, 200u);
  EXPECT_EQ(state(id), "running");
  for (const Answer& answer : {pause(id), client().post("/v1/sandboxes")}) {
    EXPECT_EQ(answer.status, 503u) << answer.text;
    EXPECT_THAT(std::string(answer.body["error"]["remedy"]), HasSubstr("stasis up"));
  }
  EXPECT_EQ(state(id), "running");
  agent_->start();
  EXPECT_TRUE(eventually([&] { return pause(id).status == 200; }));
}

TEST_F(RestSandboxes, ADestroyWithoutAnAgentIsDoneWhenItIsBack) {
  const std::string id = create();
  agent_->stop();
  EXPECT_EQ(client().remove(path(id)).status, 503u);
  EXPECT_EQ(state(id), "stopping");
  agent_->start();
  EXPECT_TRUE(eventually([&] { return state(id) == "stopped"; }));
  EXPECT_FALSE(agent_->has_sandbox(id));
}

// gRPC has the same word for an agent that is not there, and that has another remedy.
TEST_F(RestSandboxes, WhatTheAgentSaysIsNotTakenForItsSilence) {
  const std::string id = create();
  agent_->fail_calls("PingSandbox", {Code::kUnavailable, "the sandbox has ended", ""});
  const Answer told = client().post(path(id, "/ping"));
  EXPECT_EQ(told.status, 503u);
  EXPECT_EQ(told.body["error"]["message"], "ping sandbox " + id + ": the sandbox has ended");
  EXPECT_EQ(told.body["error"]["remedy"], "");
  agent_->stop();
  EXPECT_THAT(client().post(path(id, "/ping")).text, HasSubstr("the host agent does not answer"));
}

}  // namespace
}  // namespace stasis::server::testing
