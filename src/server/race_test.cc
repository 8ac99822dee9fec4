// Operations that meet: exactly one wins, and what the others began leaves nothing behind.
#include <gmock/gmock.h>

#include <atomic>

#include "server/testing/harness.h"

namespace stasis::server::testing {
namespace {

using ::testing::HasSubstr;
using Point = ScriptedAgent::Point;

class RaceTest : public ServerTest {
 protected:
  Answer snapshot(const std::string& id, const std::string& name, const std::string& query = "") {
    return client().post("/v1/snapshots" + query, {{"sandbox_id", id}, {"name", name}});
  }
  // Runs `request` until the agent's `call` is held, then `meanwhile`, lets go and returns the request's answer.
  Answer meet(const std::string& call, Point point, const std::function<Answer()>& request,
              const std::function<void()>& meanwhile) {
    agent_->hold(call, point);
    Answer answer;
    std::thread thread([&] { answer = request(); });
    EXPECT_TRUE(agent_->wait_held(call));
    meanwhile();
    agent_->release(call);
    thread.join();
    return answer;
  }
};

TEST_F(RaceTest, OfTwoPausesExactlyOneWins) {
  const std::string id = create();
  const Answer first = meet(
      "PauseSandbox", Point::kBefore, [&] { return pause(id); },
      [&] {
        const Answer second = pause(id);
        EXPECT_EQ(second.status, 409u);
        EXPECT_EQ(second.error_code(), "aborted");
        EXPECT_THAT(std::string(second.body["error"]["message"]), HasSubstr("is pausing"));
        EXPECT_EQ(resume(id).status, 409u);
        EXPECT_EQ(snapshot(id, "x").status, 409u);
        EXPECT_EQ(client().post(path(id, "/exec"), {{"command", "x"}}).status, 409u);
      });
  EXPECT_EQ(first.status, 200u);
  EXPECT_EQ(agent_->calls("PauseSandbox"), 1);
  EXPECT_EQ(state(id), "paused");
}

TEST_F(RaceTest, OfManyPausesAndResumesOneWinsEachTime) {
  const std::string id = create();
  for (int round = 0; round < 5; ++round) {
    for (const char* what : {"/pause", "/resume"}) {
      std::atomic<int> won = 0;
      std::vector<std::thread> threads;
      threads.reserve(6);
      for (int i = 0; i < 6; ++i) {
        threads.emplace_back([&] {
          const Answer answer = client().post(path(id, what));
          if (answer.status == 200) ++won;
          EXPECT_TRUE(answer.status == 200 || answer.status == 409) << answer.text;
        });
      }
      for (std::thread& thread : threads) thread.join();
      ASSERT_EQ(won, 1) << what;
    }
  }
  EXPECT_EQ(agent_->calls("PauseSandbox"), 5);
  EXPECT_EQ(agent_->snapshots().size(), 1u);
}

TEST_F(RaceTest, ADestroyEndsAPause) {
  for (const Point point : {Point::kBefore, Point::kAfter}) {
    const std::string id = create();
    const Answer paused = meet(
        "PauseSandbox", point, [&] { return pause(id); }, [&] { EXPECT_EQ(client().remove(path(id)).status, 204u); });
    EXPECT_NE(paused.status, 200u);
    EXPECT_EQ(state(id), "stopped");
    EXPECT_EQ(reason(id), "destroyed");
    EXPECT_FALSE(agent_->has_sandbox(id));
    EXPECT_TRUE(agent_->snapshots().empty());
  }
}

TEST_F(RaceTest, ADestroyEndsAResume) {
  for (const Point point : {Point::kBefore, Point::kAfter}) {
    const std::string id = create();
    ASSERT_EQ(pause(id).status, 200u);
    const Answer resumed = meet(
        "ResumeSandbox", point, [&] { return resume(id); }, [&] { EXPECT_EQ(client().remove(path(id)).status, 204u); });
    EXPECT_NE(resumed.status, 200u);
    EXPECT_EQ(state(id), "stopped");
    EXPECT_FALSE(agent_->has_sandbox(id));
    EXPECT_TRUE(agent_->snapshots().empty());
  }
}

TEST_F(RaceTest, ADestroyEndsACreate) {
  for (const Point point : {Point::kBefore, Point::kAfter}) {
    const Answer created = meet(
        "CreateSandbox", point, [&] { return client().post("/v1/sandboxes"); },
        [&] {
          const Json starting = client().get("/v1/sandboxes?state=starting").body["sandboxes"];
          ASSERT_EQ(starting.size(), 1u);
          EXPECT_EQ(client().remove(path(starting[0]["id"])).status, 204u);
        });
    EXPECT_EQ(created.status, 409u);
    EXPECT_EQ(created.error_code(), "aborted");
    EXPECT_EQ(agent_->sandbox_count(), 0u);
  }
}

TEST_F(RaceTest, ASnapshotAndAPauseDoNotMeet) {
  const std::string id = create();
  const Answer taken = meet(
      "CreateSnapshot", Point::kBefore, [&] { return snapshot(id, "warm"); },
      [&] {
        EXPECT_EQ(pause(id).error_code(), "aborted");
        EXPECT_EQ(snapshot(id, "other").error_code(), "aborted");
        ASSERT_TRUE(server_->reconcile());
        EXPECT_EQ(client().post(path(id, "/ping")).status, 200u);
      });
  EXPECT_EQ(taken.status, 201u) << taken.text;
  EXPECT_EQ(pause(id).status, 200u);
}

TEST_F(RaceTest, ADestroyDuringASnapshotKeepsTheSnapshot) {
  const std::string id = create();
  const Answer taken = meet(
      "CreateSnapshot", Point::kAfter, [&] { return snapshot(id, "warm"); },
      [&] { EXPECT_EQ(client().remove(path(id)).status, 204u); });
  EXPECT_EQ(taken.status, 201u) << taken.text;
  create({{"template", "warm"}});
}

TEST_F(RaceTest, OfTwoSnapshotsWithOneNameOneWins) {
  const std::string a = create();
  const std::string b = create();
  const Answer first = meet(
      "CreateSnapshot", Point::kBefore, [&] { return snapshot(a, "warm"); },
      [&] {
        std::thread second([&] {
          const Answer answer = snapshot(b, "warm");
          EXPECT_TRUE(answer.status == 201 || answer.status == 409) << answer.text;
        });
        EXPECT_TRUE(eventually([&] { return agent_->calls("CreateSnapshot") == 2; }));
        agent_->release("CreateSnapshot");
        second.join();
      });
  EXPECT_TRUE(first.status == 201 || first.status == 409) << first.text;
  EXPECT_EQ(client().get("/v1/snapshots?type=snapshot").body["snapshots"].size(), 1u);
  EXPECT_EQ(agent_->snapshots().size(), 1u) << "the loser's must be deleted";
}

TEST_F(RaceTest, AnAgentThatDiesInAPauseAfterItsWork) {
  const std::string id = create();
  agent_->hold("PauseSandbox", Point::kAfter);
  std::thread thread([&] { EXPECT_EQ(pause(id).status, 503u); });
  ASSERT_TRUE(agent_->wait_held("PauseSandbox"));
  agent_->stop();
  thread.join();
  EXPECT_EQ(state(id), "pausing") << "nobody knows yet";
  agent_->start();
  EXPECT_TRUE(eventually([&] { return state(id) == "paused"; }));
  EXPECT_EQ(resume(id).status, 200u);
}

TEST_F(RaceTest, AnAgentThatDiesInAPauseBeforeItsWork) {
  const std::string id = create();
  agent_->hold("PauseSandbox", Point::kBefore);
  std::thread thread([&] { EXPECT_EQ(pause(id).status, 503u); });
  ASSERT_TRUE(agent_->wait_held("PauseSandbox"));
  agent_->stop();
  thread.join();
  agent_->start();
  EXPECT_TRUE(eventually([&] { return state(id) == "running"; }));
  EXPECT_TRUE(eventually([&] { return pause(id).status == 200u; })) << "409 until what it left has been cleared away";
}

TEST_F(RaceTest, AnAgentThatDiesInACreateLeavesNothingThatNobodyKnows) {
  agent_->hold("CreateSandbox", Point::kAfter);
  std::thread thread([&] { EXPECT_EQ(client().post("/v1/sandboxes").status, 503u); });
  ASSERT_TRUE(agent_->wait_held("CreateSandbox"));
  agent_->stop();
  thread.join();
  agent_->start();
  EXPECT_TRUE(eventually([&] { return agent_->sandbox_count() == 0; }));
  EXPECT_TRUE(eventually([&] { return client().get("/v1/sandboxes").body["sandboxes"].empty(); }));
}

TEST_F(RaceTest, WithAKeyWhatWasMadeIsKeptForTheRepetition) {
  const Headers key = {{"Idempotency-Key", "k"}};
  agent_->hold("CreateSandbox", Point::kAfter);
  std::thread thread([&] { EXPECT_EQ(client().post("/v1/sandboxes", {}, key).status, 503u); });
  ASSERT_TRUE(agent_->wait_held("CreateSandbox"));
  agent_->stop();
  thread.join();
  agent_->start();
  EXPECT_TRUE(eventually([&] { return client().post("/v1/sandboxes", {}, key).status == 200; }));
  EXPECT_EQ(agent_->sandbox_count(), 1u);
}

TEST_F(RaceTest, WhateverMeetsTheStateIsTrueInTheEnd) {
  const std::string id = create();
  std::vector<std::thread> threads;
  threads.reserve(6);
  for (int i = 0; i < 6; ++i) {
    threads.emplace_back([&, i] {
      for (int round = 0; round < 8; ++round) {
        const Answer answer = i % 3 == 0   ? pause(id)
                              : i % 3 == 1 ? resume(id)
                                           : snapshot(id, "s" + std::to_string(i), "?overwrite=true");
        EXPECT_TRUE(answer.status == 200 || answer.status == 201 || answer.status == 409) << answer.text;
        EXPECT_TRUE(server_->reconcile());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const std::string last = state(id);
  EXPECT_TRUE(last == "running" || last == "paused") << last << " " << reason(id);
  EXPECT_EQ(agent_->has_sandbox(id), last == "running");
  EXPECT_EQ(client().remove(path(id)).status, 204u);
  const Json named = client().get("/v1/snapshots?type=snapshot").body;
  for (const Json& one : named["snapshots"]) {
    EXPECT_EQ(client().remove("/v1/snapshots/" + std::string(one["name"])).status, 204u);
  }
  EXPECT_EQ(agent_->sandbox_count(), 0u);
  EXPECT_TRUE(agent_->snapshots().empty());
}

}  // namespace
}  // namespace stasis::server::testing
