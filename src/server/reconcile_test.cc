// The reconciler against a host that changes behind the control plane's back.
#include <gmock/gmock.h>

#include "base/clock.h"
#include "server/testing/harness.h"

namespace stasis::server::testing {
namespace {

using Point = ScriptedAgent::Point;

class ReconcileTest : public ServerTest {
 protected:
  void pass() {
    const Status done = server_->reconcile();
    ASSERT_TRUE(done) << done.error().message;
  }
  void lose(const std::string& id) {
    agent_->edit([&](auto& sandboxes, auto&) { sandboxes.erase(id); });
  }
  void put(const std::string& id, const ScriptedSandbox& sandbox) {
    agent_->edit([&](auto& sandboxes, auto&) { sandboxes[id] = sandbox; });
  }
  // One pass whose look at the host is held while `meanwhile` runs.
  void pass_around(Point point, const std::function<void()>& meanwhile) {
    agent_->hold("ListSandboxes", point);
    std::thread thread([&] { pass(); });
    EXPECT_TRUE(agent_->wait_held("ListSandboxes"));
    meanwhile();
    agent_->release("ListSandboxes");
    thread.join();
  }
};

TEST_F(ReconcileTest, ALostSandboxIsAnErrorAndHeals) {
  const std::string id = create();
  lose(id);
  pass();
  EXPECT_EQ(state(id), "error");
  EXPECT_EQ(reason(id), "lost");
  EXPECT_EQ(pause(id).status, 409u);
  put(id, {});
  pass();
  EXPECT_EQ(state(id), "running");
  EXPECT_EQ(reason(id), "");
  EXPECT_EQ(pause(id).status, 200u);
}

TEST_F(ReconcileTest, ADeadSandboxKeepsItsReasonAndIsCleanedUp) {
  const std::string id = create();
  agent_->edit([&](auto& sandboxes, auto&) {
    sandboxes[id].state = "dead";
    sandboxes[id].reason = "a page could not be read: layer damaged";
  });
  pass();
  EXPECT_EQ(state(id), "error");
  EXPECT_EQ(reason(id), "a page could not be read: layer damaged");
  EXPECT_FALSE(agent_->has_sandbox(id));
  pass();
  EXPECT_EQ(reason(id), "a page could not be read: layer damaged");
  EXPECT_EQ(client().remove(path(id)).status, 204u);
}

TEST_F(ReconcileTest, PausedSandboxesAreExpectedToBeAbsent) {
  const std::string id = create();
  ASSERT_EQ(pause(id).status, 200u);
  pass();
  pass();
  EXPECT_EQ(state(id), "paused");
  EXPECT_EQ(resume(id).status, 200u);
}

TEST_F(ReconcileTest, ADeadlineThatPassedIsATimeout) {
  const std::string gone = create({{"timeout_sec", 1}});
  const std::string kept = create({{"timeout_sec", 600}});
  const std::string told = create({{"timeout_sec", 600}});
  lose(gone);  // its second is within the slack between two clocks
  agent_->edit([&](auto& sandboxes, auto&) {
    sandboxes[told].state = "dead";
    sandboxes[told].reason = "timeout";
  });
  pass();
  EXPECT_EQ(state(gone), "stopped");
  EXPECT_EQ(reason(gone), "timeout");
  EXPECT_EQ(state(told), "stopped");
  EXPECT_EQ(reason(told), "timeout");
  EXPECT_EQ(state(kept), "running");
}

TEST_F(ReconcileTest, TheHostsDeadlineCounts) {
  const std::string id = create({{"timeout_sec", 100}});
  const Json before = sandbox(id)["deadline"];
  agent_->edit([&](auto& sandboxes, auto&) { sandboxes[id].deadline_ms += 60'000; });
  pass();
  EXPECT_GT(std::string(sandbox(id)["deadline"]), std::string(before));
  EXPECT_EQ(state(id), "running");
}

TEST_F(ReconcileTest, AnUnknownSandboxIsEndedAtTheSecondSight) {
  put("ghost", {});
  pass();
  EXPECT_TRUE(agent_->has_sandbox("ghost"));
  lose("ghost");
  pass();
  put("ghost", {});
  pass();
  EXPECT_TRUE(agent_->has_sandbox("ghost")) << "sightings must be consecutive";
  pass();
  EXPECT_FALSE(agent_->has_sandbox("ghost"));
}

TEST_F(ReconcileTest, ASandboxThatWasDestroyedDoesNotComeBack) {
  const std::string id = create();
  ASSERT_EQ(client().remove(path(id)).status, 204u);
  put(id, {});
  pass();
  EXPECT_EQ(state(id), "stopped");
  pass();
  EXPECT_FALSE(agent_->has_sandbox(id));
}

TEST_F(ReconcileTest, ASandboxThatStartsDuringThePassIsNotLost) {
  for (const Point point : {Point::kBefore, Point::kAfter}) {
    std::string id;
    pass_around(point, [&] { id = create(); });
    EXPECT_EQ(state(id), "running");
    pass();
    EXPECT_EQ(state(id), "running");
    EXPECT_TRUE(agent_->has_sandbox(id));
  }
}

TEST_F(ReconcileTest, ASandboxThatIsPausedDuringThePassIsNotLost) {
  for (const Point point : {Point::kBefore, Point::kAfter}) {
    const std::string id = create();
    pass_around(point, [&] { EXPECT_EQ(pause(id).status, 200u); });
    EXPECT_EQ(state(id), "paused");
    pass_around(point, [&] { EXPECT_EQ(resume(id).status, 200u); });
    EXPECT_EQ(state(id), "running");
    pass_around(point, [&] { EXPECT_EQ(client().remove(path(id)).status, 204u); });
    EXPECT_EQ(state(id), "stopped");
  }
}

TEST_F(ReconcileTest, AnOperationUnderWayIsLeftAlone) {
  const std::string id = create();
  agent_->hold("PauseSandbox", Point::kAfter);
  std::thread thread([&] { EXPECT_EQ(pause(id).status, 200u); });
  ASSERT_TRUE(agent_->wait_held("PauseSandbox"));
  pass();
  EXPECT_EQ(state(id), "pausing");
  agent_->release("PauseSandbox");
  thread.join();
  EXPECT_EQ(state(id), "paused");
}

TEST_F(ReconcileTest, WithoutAHostNothingIsDecided) {
  const std::string id = create();
  agent_->stop();
  const Status done = server_->reconcile();
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, Code::kUnavailable);
  EXPECT_EQ(state(id), "running");
  agent_->start();
  EXPECT_TRUE(eventually([&] { return server_->reconcile().has_value(); }));
  EXPECT_EQ(state(id), "running");
}

TEST_F(ReconcileTest, ASnapshotThatCouldNotBeDeletedIsTriedAgain) {
  const std::string id = create();
  ASSERT_EQ(pause(id).status, 200u);
  agent_->fail_calls("DeleteSnapshot", {Code::kInternal, "busy", ""});
  ASSERT_EQ(client().remove(path(id)).status, 204u);
  EXPECT_EQ(agent_->snapshots().size(), 1u);
  pass();
  EXPECT_TRUE(agent_->snapshots().empty());
}

TEST_F(ReconcileTest, SnapshotsOfOthersAreNotTouched) {
  agent_->edit([](auto&, auto& snapshots) { snapshots["somebody-elses"] = {}; });
  pass();
  pass();
  EXPECT_TRUE(agent_->has_snapshot("somebody-elses"));
}

}  // namespace
}  // namespace stasis::server::testing
