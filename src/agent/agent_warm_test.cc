// Images that are kept booted: what a create restores, what it boots, and what happens when a warm base is no good.
#include "agent/testing/agent_fixture.h"

namespace stasis::agent {
namespace {

constexpr uint32_t kImageDiskMib = 1;

class AgentWarmTest : public AgentFixture {
 protected:
  AgentWarmTest() {
    warm_bases_ = true;
    std::filesystem::create_directory(programs());
    install_vmm("a VMM");
    ::setenv("PATH", (programs().string() + ":" + path_).c_str(), 1);
  }
  ~AgentWarmTest() override { ::setenv("PATH", path_.c_str(), 1); }
  void TearDown() override {
    AgentFixture::TearDown();
    EXPECT_TRUE(bases_gone_with_their_image());
    stop_agent();
  }

  // Starts it; whether it was restored.
  bool restored(const v1::CreateSandboxRequest& request) {
    v1::SandboxStarted reply;
    const grpc::Status status = create(request, &reply);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return reply.has_restore();
  }
  bool restored(const std::string& id) { return restored(create_request(id)); }

  // What this host's VMM is from now on; nobody runs it.
  void install_vmm(const std::string& text) const {
    const Path program = programs() / "qemu-system-x86_64";
    std::ofstream(program) << text;
    std::filesystem::permissions(program, std::filesystem::perms::owner_all);
  }

  size_t stored_snapshots() const {
    return real_file_system().list(state() / "store" / "snapshots")->size();  // the image is one
  }

 private:
  Path programs() const { return root_.path() / "programs"; }
  bool bases_gone_with_their_image() {
    make_image("second");
    start_agent();
    return stored_snapshots() == 1;
  }

  const std::string path_ = std::getenv("PATH");
};

TEST_F(AgentWarmTest, TheSecondSandboxOfAShapeIsRestored) {
  EXPECT_FALSE(restored("one"));
  EXPECT_TRUE(restored("two"));
  EXPECT_NE(info("two").base_snapshot_id(), base_image());
  EXPECT_EQ(exec("two", "hostname").status.error_code(), grpc::StatusCode::OK);
  v1::CreateSandboxRequest other = create_request("three");
  other.set_memory_mb(256);
  EXPECT_FALSE(restored(other));
  v1::CreateSandboxRequest cold = create_request("four");
  cold.set_cold(true);
  EXPECT_FALSE(restored(cold));
  EXPECT_EQ(stored_snapshots(), 1U + 2);
}

TEST_F(AgentWarmTest, EachSizeOfDiskHasItsOwn) {
  const auto restored_with = [&](const std::string& id, uint32_t disk_mib) {
    v1::CreateSandboxRequest request = create_request(id);
    request.set_disk_mb(disk_mib);
    return restored(request);
  };
  EXPECT_FALSE(restored_with("one", kImageDiskMib));
  EXPECT_TRUE(restored_with("two", 0));
  EXPECT_FALSE(restored_with("three", 2 * kImageDiskMib));
  EXPECT_TRUE(restored_with("four", 2 * kImageDiskMib));
  EXPECT_EQ(supervisor_state("four").disk_bytes >> 20, 2 * kImageDiskMib);
  EXPECT_FALSE(restored_with("five", 3 * kImageDiskMib));
  EXPECT_TRUE(restored_with("six", kImageDiskMib));
  EXPECT_EQ(supervisor_state("six").disk_bytes >> 20, kImageDiskMib);
}

TEST_F(AgentWarmTest, AWarmBaseIsNobodysSnapshot) {
  EXPECT_FALSE(restored("one"));
  EXPECT_TRUE(restored("two"));
  const std::string base = info("two").base_snapshot_id();
  EXPECT_FALSE(has_snapshot(base));
  grpc::ClientContext context;
  v1::DeleteSnapshotRequest request;
  request.set_snapshot_id(base);
  v1::DeleteSnapshotReply reply;
  EXPECT_EQ(stub_->DeleteSnapshot(&context, request, &reply).error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_TRUE(restored("three"));
}

TEST_F(AgentWarmTest, ARestartedAgentKnowsThem) {
  EXPECT_FALSE(restored("one"));
  stop_agent();
  start_agent();
  EXPECT_TRUE(restored("two"));
}

TEST_F(AgentWarmTest, ASandboxThatCannotBeKeptStillStarts) {
  misbehave("one", "fail-pause");
  EXPECT_FALSE(restored("one"));
  EXPECT_EQ(stored_snapshots(), 1U);
  EXPECT_FALSE(restored("two"));
  EXPECT_TRUE(restored("three"));
}

TEST_F(AgentWarmTest, OneThatDoesNotRestoreIsDroppedAndTheImageIsBooted) {
  EXPECT_FALSE(restored("one"));
  misbehave("two", "exit-restored");
  EXPECT_FALSE(restored("two"));
  EXPECT_TRUE(restored("three"));  // from what was kept of "two"
  EXPECT_EQ(stored_snapshots(), 1U + 1);
}

TEST_F(AgentWarmTest, TheWayThatWasAskedForIsTakenOrRefusedAndTheBaseIsKept) {
  EXPECT_FALSE(restored("one"));
  v1::CreateSandboxRequest request = create_request("two");
  request.set_restore("mapped");
  v1::SandboxStarted reply;
  ASSERT_TRUE(create(request, &reply).ok());
  EXPECT_EQ(reply.restore().method(), "mapped");
  request.set_sandbox_id("three");
  misbehave("three", "no-mapping");
  EXPECT_EQ(create(request).error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(stored_snapshots(), 1U + 1);
  EXPECT_TRUE(restored("four"));
}

TEST_F(AgentWarmTest, OneOfAnUpgradedVmmIsNotTriedAndGivesWayToANewOne) {
  EXPECT_FALSE(restored("one"));
  EXPECT_TRUE(restored("two"));
  install_vmm("an upgraded VMM");
  v1::CreateSandboxRequest request = create_request("three");
  request.set_restore("mapped");
  misbehave("three", "foreign");
  EXPECT_FALSE(restored(request));
  EXPECT_EQ(stored_snapshots(), 1U + 1);
  EXPECT_TRUE(restored("four"));
}

TEST_F(AgentWarmTest, OneThatTheVmmRefusesIsDroppedThoughAWayIsAskedFor) {
  EXPECT_FALSE(restored("one"));
  v1::CreateSandboxRequest request = create_request("two");
  request.set_restore("uffd");
  misbehave("two", "foreign");
  EXPECT_FALSE(restored(request));
  EXPECT_TRUE(restored("three"));
}

TEST_F(AgentWarmTest, WhatIsKeptHasRehearsedAndTheSandboxHasItsOwnName) {
  const auto hostname = [&] {
    const auto text = read_file(real_file_system(), sandbox_dir("one") / "root/etc/hostname", 100).value();
    return std::string(reinterpret_cast<const char*>(text.data()), text.size());
  };
  misbehave("one", "hold-pause");
  auto creating = std::async(std::launch::async, [&] { return create("one"); });
  ASSERT_TRUE(eventually([&] { return is_held("one"); }));
  EXPECT_EQ(hostname(), "rehearsal00000000000\n");
  go("one");
  EXPECT_TRUE(creating.get().ok());
  EXPECT_EQ(hostname(), "one\n");
  EXPECT_TRUE(restored("two"));
}

class AgentWarmSurvivalTest : public AgentWarmTest {
 protected:
  void SetUp() override { start_program(); }
};

TEST_F(AgentWarmSurvivalTest, WhatTheSupervisorOfAKilledAgentKeepsIsTheNextAgents) {
  misbehave("one", "hold-pause");
  auto creating = std::async(std::launch::async, [&] { return create("one"); });
  ASSERT_TRUE(eventually([&] { return is_held("one"); }));
  (void)program_->kill_and_wait();
  EXPECT_FALSE(creating.get().ok());
  program_.reset();
  start_agent();
  EXPECT_EQ(stored_snapshots(), 1U);
  go("one");
  int number = 0;
  EXPECT_TRUE(eventually([&] { return restored("s" + std::to_string(number++)); }));
  EXPECT_EQ(stored_snapshots(), 1U + 1);
}

TEST_F(AgentWarmTest, DestroyedWhileItIsKeptLeavesNothing) {
  misbehave("one", "hold-pause");
  auto creating = std::async(std::launch::async, [&] { return create("one"); });
  ASSERT_TRUE(eventually([&] { return is_held("one"); }));
  EXPECT_TRUE(destroy("one").ok());
  EXPECT_EQ(creating.get().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_EQ(stored_snapshots(), 1U);
  EXPECT_FALSE(restored("two"));
}

}  // namespace
}  // namespace stasis::agent
