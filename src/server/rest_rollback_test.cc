#include <gmock/gmock.h>

#include "server/testing/harness.h"

namespace stasis::server::testing {
namespace {

using ::testing::HasSubstr;
using Point = ScriptedAgent::Point;

class RestRollback : public ServerTest {
 protected:
  std::string snapshot(const std::string& id, const std::string& name) {
    const Answer answer = client().post("/v1/snapshots", {{"sandbox_id", id}, {"name", name}});
    EXPECT_EQ(answer.status, 201u) << answer.text;
    return answer.body.value("snapshot_id", "");
  }
  Answer rollback(const std::string& id, const std::string& name) {
    return client().post(path(id, "/rollback"), {{"snapshot", name}});
  }
  // What the guest has: a file, that goes into snapshots and comes back with them.
  void put(const std::string& id, const std::string& content) {
    agent_->edit([&](auto& sandboxes, auto&) { sandboxes.at(id).files["/state"] = content; });
  }
  std::string content(const std::string& id) {
    std::string found;
    agent_->edit([&](auto& sandboxes, auto&) { found = sandboxes.at(id).files["/state"]; });
    return found;
  }
};

TEST_F(RestRollback, OfARunningSandboxGivesTheStateOfThenUnderTheSameId) {
  const std::string id = create({{"timeout_sec", 600}});
  put(id, "then");
  const std::string then = snapshot(id, "then");
  put(id, "now");
  const Answer restored = rollback(id, "then");
  ASSERT_EQ(restored.status, 200u) << restored.text;
  EXPECT_EQ(restored.body["id"], id);
  EXPECT_EQ(restored.body["state"], "running");
  EXPECT_EQ(restored.body["timeout_sec"], 600);
  EXPECT_EQ(restored.body["snapshot_id"], then);
  EXPECT_EQ(content(id), "then");
  EXPECT_EQ(agent_->snapshots(), std::set<std::string>{then}) << "what it was before is let go of";
}

TEST_F(RestRollback, OfAPausedSandboxAndAgainAndAgain) {
  const std::string id = create();
  put(id, "first");
  const std::string first = snapshot(id, "first");
  put(id, "second");
  const std::string second = snapshot(id, "second");
  ASSERT_EQ(pause(id).status, 200u);
  for (const std::string name : {"first", "second", "second", "first"}) {
    ASSERT_EQ(rollback(id, name).status, 200u);
    EXPECT_EQ(content(id), name);
  }
  EXPECT_EQ(agent_->snapshots(), (std::set<std::string>{first, second}));
}

TEST_F(RestRollback, ByTheWayThatIsAskedFor) {
  const std::string id = create();
  snapshot(id, "then");
  for (const std::string way : {"mapped", "uffd"}) {
    const Answer restored = client().post(path(id, "/rollback"), {{"snapshot", "then"}, {"restore", way}});
    ASSERT_EQ(restored.status, 200u) << restored.text;
    EXPECT_EQ(restored.body["restore"]["method"], way);
  }
  EXPECT_EQ(client().post(path(id, "/rollback"), {{"snapshot", "then"}, {"restore", "teleport"}}).status, 400u);
  EXPECT_EQ(sandbox(id)["state"], "running") << "a bad request changes nothing";
}

TEST_F(RestRollback, ASnapshotThatTheSandboxWasRolledBackToOutlivesItsName) {
  const std::string id = create();
  const std::string then = snapshot(id, "then");
  ASSERT_EQ(rollback(id, "then").status, 200u);
  EXPECT_EQ(client().remove("/v1/snapshots/then").status, 204u);
  EXPECT_TRUE(agent_->has_snapshot(then));
  ASSERT_EQ(pause(id).status, 200u);
  EXPECT_FALSE(agent_->has_snapshot(then));
  EXPECT_EQ(resume(id).status, 200u);
}

TEST_F(RestRollback, OneThatFailsLeavesTheSandboxPausedAsItWas) {
  const std::string id = create();
  put(id, "then");
  const std::string then = snapshot(id, "then");
  put(id, "now");
  agent_->fail_calls("ResumeSandbox", {Code::kDataLoss, "frame 7 is damaged", ""});
  const Answer failed = rollback(id, "then");
  EXPECT_EQ(failed.status, 500u) << failed.text;
  EXPECT_THAT(std::string(failed.body["error"]["message"]), HasSubstr("frame 7 is damaged"));
  EXPECT_THAT(std::string(failed.body["error"]["remedy"]), HasSubstr("resume it"));
  EXPECT_EQ(state(id), "paused");
  EXPECT_THAT(reason(id), HasSubstr("rollback failed"));
  EXPECT_TRUE(agent_->has_snapshot(then));
  ASSERT_EQ(resume(id).status, 200u);
  EXPECT_EQ(content(id), "now");
}

TEST_F(RestRollback, APauseThatFailsLetsTheSandboxRunOn) {
  const std::string id = create();
  put(id, "now");
  snapshot(id, "then");
  agent_->fail_calls("PauseSandbox", {Code::kResourceExhausted, "the disk is full", ""});
  EXPECT_EQ(rollback(id, "then").status, 507u);
  EXPECT_EQ(state(id), "running");
  EXPECT_EQ(content(id), "now");
}

TEST_F(RestRollback, WhatCannotBeIsRefusedBeforeAnythingHappens) {
  const std::string id = create();
  const std::string other = create();
  snapshot(other, "of-another");
  EXPECT_EQ(rollback(id, "nothing").status, 404u);
  EXPECT_EQ(rollback("nobody", "of-another").status, 404u);
  EXPECT_EQ(client().post(path(id, "/rollback")).status, 400u);
  for (const char* name : {"of-another", "base"}) {
    const Answer refused = rollback(id, name);
    EXPECT_EQ(refused.status, 409u) << name;
    EXPECT_THAT(std::string(refused.body["error"]["message"]), HasSubstr("was not taken of sandbox " + id));
  }
  EXPECT_EQ(state(id), "running");
  EXPECT_EQ(agent_->calls("PauseSandbox"), 0);
}

TEST_F(RestRollback, AServerThatDiesOnTheWayFindsEitherStateAgain) {
  for (const Point point : {Point::kBefore, Point::kAfter}) {
    const std::string id = create();
    put(id, "then");
    const std::string then = snapshot(id, "then" + std::to_string(static_cast<int>(point)));
    put(id, "now");
    agent_->hold("ResumeSandbox", point);
    std::thread thread([&] { EXPECT_NE(rollback(id, "then" + std::to_string(static_cast<int>(point))).status, 200u); });
    ASSERT_TRUE(agent_->wait_held("ResumeSandbox"));
    agent_->stop();
    thread.join();
    agent_->start();
    ASSERT_TRUE(eventually([&] { return server_->reconcile() && state(id) != "resuming"; }));
    if (point == Point::kBefore) {
      EXPECT_EQ(state(id), "paused");
      ASSERT_EQ(resume(id).status, 200u);
      EXPECT_EQ(content(id), "now");
    } else {
      EXPECT_EQ(state(id), "running");
      EXPECT_EQ(content(id), "then");
    }
    EXPECT_TRUE(agent_->has_snapshot(then));
    ASSERT_EQ(pause(id).status, 200u);
    EXPECT_EQ(agent_->snapshots().size(), 2u + static_cast<size_t>(point == Point::kAfter) * 2);
  }
}

TEST_F(RestRollback, ADestroyEndsIt) {
  const std::string id = create();
  const std::string then = snapshot(id, "then");
  agent_->hold("ResumeSandbox", Point::kAfter);
  Answer restored;
  std::thread thread([&] { restored = rollback(id, "then"); });
  ASSERT_TRUE(agent_->wait_held("ResumeSandbox"));
  EXPECT_EQ(client().remove(path(id)).status, 204u);
  agent_->release("ResumeSandbox");
  thread.join();
  EXPECT_NE(restored.status, 200u);
  EXPECT_EQ(state(id), "stopped");
  EXPECT_FALSE(agent_->has_sandbox(id));
  EXPECT_EQ(agent_->snapshots(), std::set<std::string>{then});
}

}  // namespace
}  // namespace stasis::server::testing
