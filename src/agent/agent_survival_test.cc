// Sandboxes outlive the agent: stopped, restarted, killed at any point.
#include "agent/testing/agent_fixture.h"

namespace stasis::agent {
namespace {

using grpc::StatusCode;
using ::testing::HasSubstr;

std::string new_id() { return Uuid::random().text(); }

class AgentSurvivalTest : public AgentFixture {
 protected:
  void SetUp() override {}  // each test says when, and which

  void restart_in_process() {
    kill_program();
    start_agent();
  }
};

TEST_F(AgentSurvivalTest, AKilledAgentsSandboxesAreAdopted) {
  start_program();
  v1::CreateSandboxRequest request = create_request("one");
  request.set_access_token("secret");
  request.set_timeout_sec(1000);
  ASSERT_TRUE(create(request).ok());
  ASSERT_TRUE(exec("one", "sleep 1000 & echo $! > " + (root_.path() / "pid").string()).status.ok());
  pid_t background = 0;
  std::ifstream(root_.path() / "pid") >> background;
  ends_with_test(background);
  const int64_t deadline = info("one").deadline_unix_ms();
  restart_in_process();
  EXPECT_EQ(info("one").state(), "running");
  EXPECT_TRUE(info("one").adopted());
  EXPECT_EQ(info("one").deadline_unix_ms(), deadline);
  EXPECT_EQ(info("one").memory_mb(), 128U);
  const Output output = exec("one", "kill -0 $(cat " + (root_.path() / "pid").string() + ") && echo alive");
  EXPECT_EQ(output.out, "alive\n") << output.status.error_message();
  const std::string snapshot = new_id();
  EXPECT_TRUE(pause("one", snapshot).ok());
  EXPECT_TRUE(resume("one", snapshot).ok());
}

TEST_F(AgentSurvivalTest, AStoppedAgentLeavesCommandsRunning) {
  start_program();
  ASSERT_TRUE(create("one").ok());
  grpc::ClientContext context;
  auto stream = stub_->Exec(&context, shell("one", "sleep 1000"));
  v1::ExecEvent event;
  ASSERT_TRUE(stream->Read(&event));
  ends_with_test(static_cast<pid_t>(event.started_pid()));
  const auto command = open_pidfd(static_cast<pid_t>(event.started_pid()));
  ASSERT_TRUE(command);
  program_->signal(SIGTERM);
  const auto status = program_->wait(Deadline::after(Milliseconds(15'000)));
  ASSERT_TRUE(status && *status) << "the agent does not stop while a command runs";
  EXPECT_TRUE((*status)->success());
  EXPECT_EQ(stream->Finish().error_code(), StatusCode::UNAVAILABLE);
  stream.reset();
  EXPECT_FALSE(*wait_readable(command->get(), Deadline::after(Milliseconds(100)))) << "the command was killed";
  restart_in_process();
  EXPECT_EQ(info("one").state(), "running");
}

TEST_F(AgentSurvivalTest, AnAgentStopsInTheMiddleOfAPause) {
  misbehave("one", "hold-pause");
  start_program();
  ASSERT_TRUE(create("one").ok());
  const std::string snapshot = new_id();
  auto pausing = std::async(std::launch::async, [&] { return pause("one", snapshot); });
  ASSERT_TRUE(eventually([&] { return is_held("one"); }));
  program_->signal(SIGTERM);
  const auto status = program_->wait(Deadline::after(Milliseconds(15'000)));
  ASSERT_TRUE(status && *status) << "the agent does not stop during a pause";
  EXPECT_EQ(pausing.get().error_code(), StatusCode::UNAVAILABLE);
  program_.reset();
  start_agent();
  EXPECT_EQ(info("one").state(), "pausing");
  EXPECT_TRUE(std::filesystem::exists(state() / "tokens" / snapshot));
  go("one");
  EXPECT_TRUE(eventually([&] { return list().sandboxes_size() == 0; }));
  EXPECT_TRUE(has_snapshot(snapshot));
  EXPECT_FALSE(std::filesystem::exists(sandbox_dir("one")));
}

TEST_F(AgentSurvivalTest, ASandboxThatIsPausingCanBeDestroyedByTheNextAgent) {
  misbehave("one", "hold-pause");
  start_program();
  ASSERT_TRUE(create("one").ok());
  auto pausing = std::async(std::launch::async, [&] { return pause("one", new_id()); });
  ASSERT_TRUE(eventually([&] { return is_held("one"); }));
  (void)program_->kill_and_wait();
  EXPECT_FALSE(pausing.get().ok());
  program_.reset();
  start_agent();
  EXPECT_TRUE(destroy("one").ok());
  EXPECT_EQ(list().sandboxes_size(), 0);
}

TEST_F(AgentSurvivalTest, WhatASupervisorStillWritesIsDeletedByTheNextAgentWhenItIsThere) {
  misbehave("one", "hold-pause");
  start_program();
  ASSERT_TRUE(create("one").ok());
  const std::string snapshot = new_id();
  auto taking = std::async(std::launch::async, [&] { return take_snapshot("one", snapshot); });
  ASSERT_TRUE(eventually([&] { return is_held("one"); }));
  (void)program_->kill_and_wait();
  EXPECT_FALSE(taking.get().ok());
  program_.reset();
  start_agent();
  EXPECT_EQ(delete_snapshot(snapshot).error_code(), StatusCode::ABORTED);
  go("one");
  ASSERT_TRUE(eventually([&] { return info("one").state() == "running"; }));
  EXPECT_TRUE(delete_snapshot(snapshot).ok());
  EXPECT_EQ(delete_snapshot(snapshot).error_code(), StatusCode::NOT_FOUND);
  EXPECT_FALSE(has_snapshot(snapshot));
}

TEST_F(AgentSurvivalTest, AStartThatAKillInterruptedIsEnded) {
  misbehave("one", "no-daemon");
  start_program();
  const v1::CreateSandboxRequest request = create_request("one");
  auto creating = std::async(std::launch::async, [&] {
    grpc::ClientContext context;
    v1::SandboxStarted reply;
    return stub_->CreateSandbox(&context, request, &reply);
  });
  ASSERT_TRUE(eventually([&] { return supervisor::Client::connect(sandbox_dir("one")).has_value(); }));
  remember("one");
  (void)program_->kill_and_wait();
  EXPECT_FALSE(creating.get().ok());
  program_.reset();
  start_agent();
  EXPECT_EQ(list().sandboxes_size(), 0);
  EXPECT_FALSE(std::filesystem::exists(sandbox_dir("one")));
}

// Killed at one moment after another of a create: afterwards the sandbox runs, or nothing of it is there.
TEST_F(AgentSurvivalTest, KilledAtAnyMomentOfACreate) {
  for (int round = 0; round < 8; ++round) {
    const std::string id = "k" + std::to_string(round);
    start_program();
    const v1::CreateSandboxRequest request = create_request(id);
    auto creating = std::async(std::launch::async, [&] {
      grpc::ClientContext context;
      v1::SandboxStarted reply;
      return stub_->CreateSandbox(&context, request, &reply);
    });
    std::this_thread::sleep_for(Milliseconds(round * 6));
    (void)program_->kill_and_wait();
    const bool created = creating.get().ok();
    program_.reset();
    start_agent();
    const std::string found = info(id).state();
    EXPECT_TRUE(found == "running" || found.empty()) << found;
    EXPECT_TRUE(found == "running" || !created) << "answered, and gone";
    EXPECT_EQ(found.empty(), !std::filesystem::exists(sandbox_dir(id)));
    EXPECT_EQ(found.empty(), !supervisor::Client::connect(sandbox_dir(id)));
    EXPECT_EQ(exec(id, "exit 4").exit_code, found.empty() ? -100 : 4);
    EXPECT_TRUE(destroy(id).ok());
    stop_agent();
  }
}

TEST_F(AgentSurvivalTest, WhatEndedWhileNoAgentWasThere) {
  start_program();
  ASSERT_TRUE(create("killed").ok());
  ASSERT_TRUE(create("stopped").ok());
  ASSERT_TRUE(create("broken").ok());
  kill_program();
  signal_pidfd(started_[0].get(), SIGKILL);
  ASSERT_TRUE((*supervisor::Client::connect(sandbox_dir("stopped")))->stop("by hand", Milliseconds(5000)));
  signal_pidfd(started_[5].get(), SIGKILL);
  for (const UniqueFd& pidfd : started_) ASSERT_TRUE(*wait_readable(pidfd.get(), Deadline::after(Milliseconds(5000))));
  start_agent();
  EXPECT_EQ(info("killed").state(), "dead");
  EXPECT_THAT(info("killed").reason(), HasSubstr("while no agent was there"));
  EXPECT_EQ(info("broken").state(), "dead");
  EXPECT_EQ(info("broken").reason(), "vmm exited: by itself");
  EXPECT_EQ(info("broken").memory_mb(), 128U);
  EXPECT_EQ(info("stopped").sandbox_id(), "");
  EXPECT_FALSE(std::filesystem::exists(sandbox_dir("stopped")));
}

// Records of running sandboxes are not synced: after a power cut they may be there in name only.
TEST_F(AgentSurvivalTest, ATornMapOfWhatThePowerCutEndedIsNoErrorToACollection) {
  start_program();
  ASSERT_TRUE(create("one").ok());
  kill_program();
  signal_pidfd(started_[0].get(), SIGKILL);
  ASSERT_TRUE(*wait_readable(started_[0].get(), Deadline::after(Milliseconds(5000))));
  std::ofstream(sandbox_dir("one") / supervisor::kMemoryMapFile) << "torn";
  start_agent();
  EXPECT_EQ(info("one").state(), "dead");
  grpc::ClientContext context;
  v1::CollectStoreReply reply;
  const grpc::Status collected = stub_->CollectStore(&context, {}, &reply);
  EXPECT_TRUE(collected.ok()) << collected.error_message();
}

TEST_F(AgentSurvivalTest, ADeadlineThatPassedMeanwhileIsKept) {
  start_program();
  v1::CreateSandboxRequest request = create_request("one");
  request.set_timeout_sec(1);
  ASSERT_TRUE(create(request).ok());
  restart_in_process();
  EXPECT_TRUE(eventually([&] { return info("one").state() == "dead"; }));
  EXPECT_EQ(info("one").reason(), "timeout");
  stop_agent();
  start_agent();  // not told to the server yet, perhaps
  EXPECT_EQ(info("one").reason(), "timeout");
}

}  // namespace
}  // namespace stasis::agent
