#include <gmock/gmock.h>

#include "server/testing/harness.h"

namespace stasis::server::testing {
namespace {

using ::testing::HasSubstr;

class RestSnapshots : public ServerTest {
 protected:
  Answer snapshot(const std::string& id, const std::string& name, const std::string& query = "") {
    return client().post("/v1/snapshots" + query, {{"sandbox_id", id}, {"name", name}});
  }
};

TEST_F(RestSnapshots, ImagesAreListedAndCannotBeDeleted) {
  const Answer all = client().get("/v1/snapshots");
  ASSERT_EQ(all.body["snapshots"].size(), 1u) << all.text;
  EXPECT_EQ(all.body["snapshots"][0]["name"], "base");
  EXPECT_EQ(all.body["snapshots"][0]["type"], "base");
  EXPECT_EQ(all.body["snapshots"][0]["size_bytes"], 12345);
  EXPECT_EQ(client().remove("/v1/snapshots/base").status, 409u);
  EXPECT_EQ(client().remove("/v1/snapshots/base").error_code(), "failed_precondition");
  EXPECT_EQ(snapshot(create(), "base", "?overwrite=true").status, 409u);
}

TEST_F(RestSnapshots, WhatCouldNotBeCopiedAheadSaysWhy) {
  const std::string id = create();
  agent_->edit([&](auto& sandboxes, auto&) { sandboxes.at(id).not_copied_ahead = "nobody looks"; });
  EXPECT_EQ(snapshot(id, "warm").body["capture"]["live"],
            (Json{{"rounds", 0}, {"last_round_bytes", 4096}, {"reason", "nobody looks"}}));
}

TEST_F(RestSnapshots, OfARunningSandboxAndClonesOfIt) {
  const std::string id = create({{"vcpus", 2}, {"memory_mb", 512}});
  const Answer taken = snapshot(id, "warm");
  ASSERT_EQ(taken.status, 201u) << taken.text;
  EXPECT_EQ(taken.body["vcpus"], 2);
  EXPECT_EQ(taken.body["memory_mb"], 512);
  EXPECT_EQ(taken.body["sandbox_id"], id);
  EXPECT_EQ(taken.body["capture"]["memory"]["stored_bytes"], 4096);
  EXPECT_EQ(taken.body["capture"]["live"], (Json{{"rounds", 3}, {"last_round_bytes", 4096}}));
  EXPECT_EQ(state(id), "running");
  EXPECT_EQ(sandbox(id)["last_snapshot"], taken.body["capture"]);
  EXPECT_EQ(client().get("/v1/snapshots/warm").body, taken.body);

  const std::string clone = create({{"template", "warm"}});
  EXPECT_EQ(sandbox(clone)["vcpus"], 2);
  EXPECT_EQ(sandbox(clone)["memory_mb"], 512);
  EXPECT_EQ(sandbox(clone)["restore"]["method"], "uffd");
  create({{"template", "warm"}, {"vcpus", 2}, {"memory_mb", 512}, {"disk_mb", kImageDiskMb}});
  for (const Json& body : {Json{{"template", "warm"}, {"vcpus", 1}}, Json{{"template", "warm"}, {"memory_mb", 256}},
                           Json{{"template", "warm"}, {"disk_mb", 65}}}) {
    const Answer refused = client().post("/v1/sandboxes", body);
    EXPECT_EQ(refused.status, 400u) << body;
    EXPECT_THAT(std::string(refused.body["error"]["remedy"]), HasSubstr("leave")) << body;
  }
  EXPECT_EQ(client().get("/v1/snapshots?type=snapshot").body["snapshots"].size(), 1u);
  EXPECT_EQ(client().get("/v1/snapshots?type=base").body["snapshots"].size(), 1u);
  EXPECT_EQ(client().get("/v1/snapshots?type=other").status, 400u);

  EXPECT_EQ(client().remove("/v1/snapshots/warm").status, 204u);
  EXPECT_EQ(client().remove("/v1/snapshots/warm").status, 404u);
  EXPECT_TRUE(agent_->snapshots().empty());
  EXPECT_EQ(state(clone), "running");
  EXPECT_EQ(client().post("/v1/sandboxes", {{"template", "warm"}}).status, 404u);
}

TEST_F(RestSnapshots, ANameIsTakenUnlessOverwritten) {
  const std::string id = create();
  const std::string first = snapshot(id, "warm").body["snapshot_id"];
  const Answer taken = snapshot(id, "warm");
  EXPECT_EQ(taken.status, 409u);
  EXPECT_EQ(taken.error_code(), "already_exists");
  EXPECT_EQ(agent_->calls("CreateSnapshot"), 1);
  const Answer swapped = snapshot(id, "warm", "?overwrite=true");
  ASSERT_EQ(swapped.status, 201u) << swapped.text;
  EXPECT_NE(swapped.body["snapshot_id"], first);
  EXPECT_FALSE(agent_->has_snapshot(first));
  EXPECT_TRUE(agent_->has_snapshot(swapped.body["snapshot_id"]));
  EXPECT_EQ(snapshot(id, "warm", "?overwrite=maybe").status, 400u);
}

TEST_F(RestSnapshots, AFailedOverwriteKeepsTheOldOne) {
  const std::string id = create();
  const std::string first = snapshot(id, "warm").body["snapshot_id"];
  agent_->fail_calls("CreateSnapshot", {Code::kResourceExhausted, "disk full", ""});
  EXPECT_EQ(snapshot(id, "warm", "?overwrite=true").status, 507u);
  EXPECT_EQ(client().get("/v1/snapshots/warm").body["snapshot_id"], first);
  EXPECT_TRUE(agent_->has_snapshot(first));
  EXPECT_EQ(state(id), "running");
}

TEST_F(RestSnapshots, OfAPausedSandboxIsShared) {
  const std::string id = create();
  const std::string shared = pause(id).body["snapshot_id"];
  const Answer named = snapshot(id, "frozen");
  ASSERT_EQ(named.status, 201u) << named.text;
  EXPECT_EQ(named.body["snapshot_id"], shared);
  EXPECT_EQ(agent_->calls("CreateSnapshot"), 0);
  ASSERT_EQ(resume(id).status, 200u);
  ASSERT_EQ(pause(id).status, 200u);
  EXPECT_TRUE(agent_->has_snapshot(shared)) << "a template refers to it";
  ASSERT_EQ(client().remove(path(id)).status, 204u);
  EXPECT_TRUE(agent_->has_snapshot(shared));
  create({{"template", "frozen"}});
  ASSERT_EQ(client().remove("/v1/snapshots/frozen").status, 204u);
  EXPECT_TRUE(agent_->snapshots().empty());
}

TEST_F(RestSnapshots, ANameThatGoesLeavesThePausedSandboxItsSnapshot) {
  const std::string id = create();
  const std::string shared = pause(id).body["snapshot_id"];
  ASSERT_EQ(snapshot(id, "frozen").status, 201u);
  ASSERT_EQ(client().remove("/v1/snapshots/frozen").status, 204u);
  EXPECT_TRUE(agent_->has_snapshot(shared));
  EXPECT_EQ(resume(id).status, 200u);
}

TEST_F(RestSnapshots, BadNamesAreRefused) {
  const std::string id = create();
  for (const char* name : {"", "..", "a/b", "../etc", "A", ".hidden", "a..b", "-x", "a b"}) {
    const Answer answer = snapshot(id, name);
    EXPECT_EQ(answer.status, 400u) << name;
    EXPECT_NE(answer.body["error"]["remedy"], "") << name;
  }
  EXPECT_EQ(client().post("/v1/snapshots", {{"name", "x"}}).status, 400u);
  EXPECT_EQ(client().post("/v1/snapshots", {{"sandbox_id", id}}).status, 400u);
  EXPECT_EQ(snapshot("nosuchsandbox0000000", "x").status, 404u);
  EXPECT_EQ(client().get("/v1/snapshots/..%2F..%2Fetc").status, 404u);
  EXPECT_EQ(client().remove("/v1/snapshots/..").status, 404u);
  EXPECT_EQ(agent_->calls("CreateSnapshot"), 0);
}

TEST_F(RestSnapshots, ASnapshotThatGoesDuringACreateIsAClearError) {
  const std::string id = create();
  const std::string snapshot_id = snapshot(id, "warm").body["snapshot_id"];
  agent_->hold("CreateSandbox");
  std::thread creating([&] {
    const Answer answer = client().post("/v1/sandboxes", {{"template", "warm"}});
    EXPECT_EQ(answer.status, 404u) << answer.text;
    EXPECT_THAT(std::string(answer.body["error"]["message"]), HasSubstr("warm"));
  });
  ASSERT_TRUE(agent_->wait_held("CreateSandbox"));
  EXPECT_EQ(client().remove("/v1/snapshots/warm").status, 204u);
  EXPECT_FALSE(agent_->has_snapshot(snapshot_id));
  agent_->release("CreateSandbox");
  creating.join();
  EXPECT_EQ(agent_->sandbox_count(), 1u);
  EXPECT_EQ(client().get("/v1/sandboxes").body["sandboxes"].size(), 1u);
}

TEST_F(RestSnapshots, ADeleteWithoutAnAgentIsDoneWhenItIsBack) {
  const std::string id = create();
  const std::string snapshot_id = snapshot(id, "warm").body["snapshot_id"];
  agent_->stop();
  EXPECT_EQ(client().remove("/v1/snapshots/warm").status, 204u);
  agent_->start();
  EXPECT_TRUE(eventually([&] { return server_->reconcile().has_value(); }));
  EXPECT_FALSE(agent_->has_snapshot(snapshot_id));
}

TEST_F(RestSnapshots, AnImageOfAnAgentThatCameLaterIsFound) {
  agent_->set_images({{"base", kImageId}, {"py", "22222222-2222-4222-8222-222222222222"}});
  EXPECT_EQ(sandbox(create({{"template", "py"}}))["template"], "py");
  agent_->set_images({{"base", "33333333-3333-4333-8333-333333333333"}});
  ASSERT_TRUE(server_->reconcile());
  EXPECT_EQ(client().get("/v1/snapshots/py").status, 404u);
  EXPECT_EQ(client().get("/v1/snapshots/base").body["snapshot_id"], "33333333-3333-4333-8333-333333333333");
}

}  // namespace
}  // namespace stasis::server::testing
