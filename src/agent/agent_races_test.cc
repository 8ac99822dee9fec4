// Supervisors that fail, and operations that meet: what the caller is told, and that nothing is left behind.
#include "agent/testing/agent_fixture.h"

namespace stasis::agent {
namespace {

using grpc::StatusCode;
using ::testing::HasSubstr;

std::string new_id() { return Uuid::random().text(); }

class AgentRacesTest : public AgentFixture {
 protected:
  // A create that is stuck, in a thread of its own.
  std::future<grpc::Status> create_in_background(const std::string& id) {
    const v1::CreateSandboxRequest request = create_request(id);
    return std::async(std::launch::async, [this, request] {
      grpc::ClientContext context;
      v1::SandboxStarted reply;
      return stub_->CreateSandbox(&context, request, &reply);
    });
  }
  std::future<grpc::Status> pause_in_background(const std::string& id, const std::string& snapshot) {
    auto result = std::async(std::launch::async, [this, id, snapshot] { return pause(id, snapshot); });
    EXPECT_TRUE(eventually([&] { return is_held(id); }));
    EXPECT_EQ(info(id).state(), "pausing");
    return result;
  }
  bool nothing_left_of(const std::string& id) {
    return info(id).sandbox_id().empty() && !std::filesystem::exists(sandbox_dir(id));
  }
};

TEST_F(AgentRacesTest, ASupervisorThatCannotStartSaysWhy) {
  misbehave("one", "exit");
  const grpc::Status created = create("one");
  EXPECT_EQ(created.error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(created.error_message(), "no memory for it");
  EXPECT_TRUE(told_by_agent_) << "else it may be gRPC that speaks of an agent which does not answer";
  EXPECT_TRUE(nothing_left_of("one"));
}

TEST_F(AgentRacesTest, DestroyEndsACreateThatWaitsForTheDaemon) {
  misbehave("one", "no-daemon");
  auto creating = create_in_background("one");
  ASSERT_TRUE(eventually([&] { return supervisor::Client::connect(sandbox_dir("one")).has_value(); }));
  remember("one");
  EXPECT_EQ(create("one").error_code(), StatusCode::ALREADY_EXISTS);
  EXPECT_TRUE(destroy("one").ok());
  EXPECT_EQ(creating.get().error_code(), StatusCode::CANCELLED);
  EXPECT_TRUE(nothing_left_of("one"));
}

TEST_F(AgentRacesTest, DestroyEndsACreateThatWaitsForTheVmm) {
  misbehave("one", "hold-state");
  auto creating = create_in_background("one");
  ASSERT_TRUE(eventually([&] { return std::filesystem::exists(sandbox_dir("one") / "control.sock"); }));
  EXPECT_TRUE(destroy("one").ok());
  EXPECT_EQ(creating.get().error_code(), StatusCode::CANCELLED);
  EXPECT_TRUE(nothing_left_of("one"));
}

TEST_F(AgentRacesTest, DestroyEndsACreateThatWaitsForTheSocket) {
  misbehave("one", "no-socket");
  auto creating = create_in_background("one");
  ASSERT_TRUE(eventually([&] { return info("one").state() == "starting"; }));
  EXPECT_TRUE(destroy("one").ok());
  EXPECT_EQ(creating.get().error_code(), StatusCode::CANCELLED);
  EXPECT_TRUE(nothing_left_of("one"));
}

TEST_F(AgentRacesTest, DestroyEndsAPause) {
  misbehave("one", "hold-pause");
  ASSERT_TRUE(create("one").ok());
  const std::string snapshot = new_id();
  auto pausing = pause_in_background("one", snapshot);
  EXPECT_TRUE(destroy("one").ok());
  EXPECT_EQ(pausing.get().error_code(), StatusCode::CANCELLED);
  EXPECT_TRUE(nothing_left_of("one"));
  EXPECT_FALSE(has_snapshot(snapshot));
  EXPECT_FALSE(std::filesystem::exists(state() / "tokens" / snapshot));
}

TEST_F(AgentRacesTest, OneOperationAtATime) {
  misbehave("one", "hold-pause");
  ASSERT_TRUE(create("one").ok());
  const std::string snapshot = new_id();
  auto pausing = pause_in_background("one", snapshot);
  EXPECT_EQ(pause("one", new_id()).error_code(), StatusCode::ABORTED);
  EXPECT_EQ(take_snapshot("one", new_id()).error_code(), StatusCode::ABORTED);
  EXPECT_EQ(exec("one", "true").status.error_code(), StatusCode::FAILED_PRECONDITION);
  go("one");
  EXPECT_TRUE(pausing.get().ok());
  EXPECT_TRUE(nothing_left_of("one"));
  EXPECT_TRUE(has_snapshot(snapshot));
}

// Whoever asked for it has gone, and wants it deleted: "there is none" would be the last word about what comes later.
TEST_F(AgentRacesTest, ASnapshotIsNotDeletedBeforeItIsThere) {
  misbehave("one", "hold-pause");
  ASSERT_TRUE(create("one").ok());
  const std::string snapshot = new_id();
  auto taking = std::async(std::launch::async, [&] { return take_snapshot("one", snapshot); });
  ASSERT_TRUE(eventually([&] { return is_held("one"); }));
  EXPECT_EQ(delete_snapshot(snapshot).error_code(), StatusCode::ABORTED);
  EXPECT_THAT(remedy_, HasSubstr("again"));
  EXPECT_EQ(delete_snapshot(new_id()).error_code(), StatusCode::NOT_FOUND);
  go("one");
  EXPECT_TRUE(taking.get().ok());
  EXPECT_TRUE(delete_snapshot(snapshot).ok());
  EXPECT_EQ(delete_snapshot(snapshot).error_code(), StatusCode::NOT_FOUND);
}

TEST_F(AgentRacesTest, AFailedSnapshotIsNotOneThatIsBeingWritten) {
  misbehave("one", "fail-pause");
  ASSERT_TRUE(create("one").ok());
  const std::string snapshot = new_id();
  EXPECT_FALSE(take_snapshot("one", snapshot).ok());
  EXPECT_EQ(delete_snapshot(snapshot).error_code(), StatusCode::NOT_FOUND);
}

TEST_F(AgentRacesTest, AfterAFailedPauseTheSandboxRunsOn) {
  misbehave("one", "fail-pause");
  ASSERT_TRUE(create("one").ok());
  const std::string snapshot = new_id();
  const grpc::Status paused = pause("one", snapshot);
  EXPECT_EQ(paused.error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(paused.error_message(), HasSubstr("the disk is full"));
  EXPECT_EQ(info("one").state(), "running");
  EXPECT_EQ(exec("one", "exit 5").exit_code, 5);
  EXPECT_EQ(take_snapshot("one", new_id()).error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_FALSE(std::filesystem::exists(state() / "tokens" / snapshot));
}

TEST_F(AgentRacesTest, APauseWhoseAnswerIsLostHasHappened) {
  misbehave("one", "lose-answer");
  ASSERT_TRUE(create("one").ok());
  const std::string snapshot = new_id();
  EXPECT_TRUE(pause("one", snapshot).ok());
  EXPECT_TRUE(has_snapshot(snapshot));
  EXPECT_TRUE(nothing_left_of("one"));
}

TEST_F(AgentRacesTest, ADeadSupervisorEndsStreamsAndIsReported) {
  ASSERT_TRUE(create("one").ok());
  grpc::ClientContext context;
  auto stream = stub_->Exec(&context, shell("one", "sleep 1000"));
  v1::ExecEvent event;
  ASSERT_TRUE(stream->Read(&event));
  ends_with_test(static_cast<pid_t>(event.started_pid()));
  const auto begun = std::chrono::steady_clock::now();
  signal_pidfd(started_.front().get(), SIGKILL);
  EXPECT_FALSE(stream->Read(&event));
  EXPECT_EQ(stream->Finish().error_code(), StatusCode::UNAVAILABLE);
  EXPECT_TRUE(eventually([&] { return info("one").state() == "dead"; }));
  EXPECT_LT(std::chrono::steady_clock::now() - begun, std::chrono::seconds(15));
  EXPECT_THAT(info("one").reason(), HasSubstr("supervisor died"));
  // Aborted as long as whoever has found it dead still cleans up.
  EXPECT_TRUE(eventually([&] { return pause("one", new_id()).error_code() == StatusCode::FAILED_PRECONDITION; }));
  EXPECT_TRUE(destroy("one").ok());
  EXPECT_TRUE(nothing_left_of("one"));
}

TEST_F(AgentRacesTest, ADeadVmmIsReportedWithTheSupervisorsReason) {
  ASSERT_TRUE(create("one").ok());
  signal_pidfd(started_.back().get(), SIGKILL);
  EXPECT_TRUE(eventually([&] { return info("one").state() == "dead"; }));
  EXPECT_EQ(info("one").reason(), "vmm exited: by itself");
}

// Many at once, each ended at another moment: whatever meets whatever, nothing is left (the fixture looks).
TEST_F(AgentRacesTest, CreateAndDestroyAtAnyMoment) {
  for (int round = 0; round < 12; ++round) {
    const std::string id = "r" + std::to_string(round);
    auto creating = create_in_background(id);
    std::this_thread::sleep_for(Milliseconds(round * 4));
    EXPECT_TRUE(destroy(id).ok());
    const grpc::Status created = creating.get();
    // A destroy that came before the create found nothing.
    EXPECT_TRUE(created.ok() || created.error_code() == StatusCode::CANCELLED) << created.error_message();
    EXPECT_TRUE(destroy(id).ok());
    EXPECT_TRUE(nothing_left_of(id));
  }
}

}  // namespace
}  // namespace stasis::agent
