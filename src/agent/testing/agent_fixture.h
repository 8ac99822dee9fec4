// An agent in this process with fake supervisors (testing/fake_supervisor.cc) and a tiny image, asked over gRPC like a
// server would. Every test has a state directory of its own; what it started is gone when it ends, and that is checked.
#pragma once

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <fstream>
#include <future>
#include <memory>
#include <optional>
#include <string>

#include "agent.grpc.pb.h"
#include "agent/agent.h"
#include "base/process.h"
#include "base/testing/eventually.h"
#include "base/testing/temp_dir.h"
#include "supervisor/client.h"

namespace stasis::agent {

using stasis::testing::eventually;
using Stub = v1::HostAgent::Stub;

class AgentFixture : public ::testing::Test {
 protected:
  AgentFixture() {
    std::filesystem::create_directories(fake());
    make_image("first");
    bin_ = *executable_directory();
  }

  ~AgentFixture() override {
    for (const UniqueFd& pidfd : commands_) signal_pidfd(pidfd.get(), SIGKILL);
    for (const UniqueFd& pidfd : started_) signal_pidfd(pidfd.get(), SIGKILL);  // what a failed test has left
  }

  void SetUp() override { start_agent(); }

  void TearDown() override {
    if (program_) kill_program();
    if (!agent_) start_agent();
    if (!agent_) return;
    v1::ListSandboxesReply sandboxes = list();
    for (const v1::SandboxInfo& sandbox : sandboxes.sandboxes()) destroy(sandbox.sandbox_id());
    agent_.reset();
    EXPECT_TRUE(std::filesystem::is_empty(state() / "sandboxes"));
    EXPECT_TRUE(std::filesystem::is_empty(state() / "spares"));
    for (const UniqueFd& pidfd : started_)
      EXPECT_TRUE(*wait_readable(pidfd.get(), Deadline::after(Milliseconds(5000))));
  }

  Path state() const { return root_.path() / "s"; }
  Path fake() const { return state() / "fake"; }
  Path image() const { return root_.path() / "image"; }
  Path sandbox_dir(const std::string& id) const { return state() / "sandboxes" / id; }

  void make_image(const std::string& key) {
    std::filesystem::create_directories(image());
    std::ofstream(image() / "vmlinux") << "kernel";
    std::ofstream(image() / "initrd") << "initrd";
    std::ofstream(image() / "rootfs.ext4") << std::string(4096, 'x');
    std::filesystem::resize_file(image() / "rootfs.ext4", 1 << 20);
    std::ofstream(image() / "image.json") << R"({"version":1,"kernel_release":"6.1","key":")" << key << "\"}";
  }

  AgentOptions options() const {
    AgentOptions options;
    options.state_dir = state();
    options.socket = state() / "agent.sock";
    options.images = {{"base", image()}};
    options.images.insert(options.images.end(), more_images_.begin(), more_images_.end());
    options.supervisor_program = bin_ / "agent_fake_supervisor";
    options.files_program = files_program_;
    options.vmm = "qemu";
    options.warm_bases = warm_bases_;
    options.spares = spares_;
    return options;
  }

  void start_agent() {
    auto agent = Agent::start(options());
    ASSERT_TRUE(agent) << agent.error().message;
    agent_ = std::move(*agent);
    connect();
  }
  void connect() {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // no memory of a former agent's socket
    stub_ = v1::HostAgent::NewStub(
        grpc::CreateCustomChannel("unix:" + options().socket.string(), grpc::InsecureChannelCredentials(), arguments));
  }
  void stop_agent() {
    stub_.reset();
    agent_.reset();
  }

  // The agent as a process of its own, to be killed.
  void start_program() {
    SpawnOptions spawned;
    spawned.argv = {bin_ / "agent_test_program",  state(),
                    options().supervisor_program, image(),
                    std::to_string(spares_),      warm_bases_ ? "warm" : "cold"};
    spawned.die_with_parent = true;
    auto program = spawn(spawned);
    ASSERT_TRUE(program);
    program_ = std::move(*program);
    connect();
    grpc::ClientContext context;
    context.set_wait_for_ready(true);
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
    v1::ListSandboxesReply reply;
    ASSERT_TRUE(stub_->ListSandboxes(&context, {}, &reply).ok());
  }
  void kill_program() {
    (void)program_->kill_and_wait();
    program_.reset();
    stub_.reset();
  }

  // What its supervisor is to do wrong (fake_supervisor.cc).
  void misbehave(const std::string& id, const std::string& words) const { std::ofstream(fake() / id) << words; }
  bool is_held(const std::string& id) const { return std::filesystem::exists(fake() / (id + ".held")); }
  void go(const std::string& id) const { std::ofstream(fake() / (id + ".go")) << "go"; }

  std::string base_image() {
    grpc::ClientContext context;
    v1::ListImagesReply reply;
    EXPECT_TRUE(stub_->ListImages(&context, {}, &reply).ok());
    return reply.images_size() == 1 ? reply.images(0).snapshot_id() : "";
  }

  v1::CreateSandboxRequest create_request(const std::string& id) {
    v1::CreateSandboxRequest request;
    request.set_sandbox_id(id);
    request.set_snapshot_id(base_image());
    request.set_vcpus(1);
    request.set_memory_mb(128);
    return request;
  }
  grpc::Status create(const v1::CreateSandboxRequest& request, v1::SandboxStarted* reply = nullptr) {
    grpc::ClientContext context;
    v1::SandboxStarted ignored;
    grpc::Status status = stub_->CreateSandbox(&context, request, reply != nullptr ? reply : &ignored);
    remedy_ = remedy_of(context);
    told_by_agent_ = context.GetServerTrailingMetadata().contains("stasis-error");
    if (status.ok()) remember(request.sandbox_id());
    return status;
  }
  grpc::Status create(const std::string& id) { return create(create_request(id)); }

  grpc::Status resume(const std::string& id, const std::string& snapshot) {
    grpc::ClientContext context;
    v1::ResumeSandboxRequest request;
    request.set_sandbox_id(id);
    request.set_snapshot_id(snapshot);
    v1::SandboxStarted reply;
    grpc::Status status = stub_->ResumeSandbox(&context, request, &reply);
    if (status.ok()) remember(id);
    return status;
  }

  grpc::Status pause(const std::string& id, const std::string& snapshot, v1::SnapshotTaken* reply = nullptr) {
    grpc::ClientContext context;
    v1::PauseSandboxRequest request;
    request.set_sandbox_id(id);
    request.set_snapshot_id(snapshot);
    v1::SnapshotTaken ignored;
    return stub_->PauseSandbox(&context, request, reply != nullptr ? reply : &ignored);
  }
  grpc::Status take_snapshot(const std::string& id, const std::string& snapshot, v1::SnapshotTaken* reply = nullptr) {
    grpc::ClientContext context;
    v1::CreateSnapshotRequest request;
    request.set_sandbox_id(id);
    request.set_snapshot_id(snapshot);
    v1::SnapshotTaken ignored;
    return stub_->CreateSnapshot(&context, request, reply != nullptr ? reply : &ignored);
  }
  grpc::Status delete_snapshot(const std::string& snapshot) {
    grpc::ClientContext context;
    v1::DeleteSnapshotRequest request;
    request.set_snapshot_id(snapshot);
    v1::DeleteSnapshotReply reply;
    grpc::Status status = stub_->DeleteSnapshot(&context, request, &reply);
    remedy_ = remedy_of(context);
    return status;
  }
  grpc::Status destroy(const std::string& id, bool* existed = nullptr) {
    grpc::ClientContext context;
    v1::DestroySandboxRequest request;
    request.set_sandbox_id(id);
    v1::DestroySandboxReply reply;
    grpc::Status status = stub_->DestroySandbox(&context, request, &reply);
    if (existed != nullptr) *existed = reply.existed();
    return status;
  }

  v1::ListSandboxesReply list() {
    grpc::ClientContext context;
    v1::ListSandboxesReply reply;
    EXPECT_TRUE(stub_->ListSandboxes(&context, {}, &reply).ok());
    return reply;
  }
  v1::SandboxInfo info(const std::string& id) {
    const v1::ListSandboxesReply sandboxes = list();
    for (const v1::SandboxInfo& sandbox : sandboxes.sandboxes()) {
      if (sandbox.sandbox_id() == id) return sandbox;
    }
    return {};
  }
  bool has_snapshot(const std::string& id) {
    grpc::ClientContext context;
    v1::ListSnapshotsReply reply;
    EXPECT_TRUE(stub_->ListSnapshots(&context, {}, &reply).ok());
    for (const v1::SnapshotInfo& snapshot : reply.snapshots()) {
      if (snapshot.snapshot_id() == id) return true;
    }
    return false;
  }

  struct Output {
    grpc::Status status;
    std::string out;
    std::string err;
    int exit_code = -100;
  };
  static v1::ExecRequest shell(const std::string& id, const std::string& script) {
    v1::ExecRequest request;
    request.set_sandbox_id(id);
    request.set_command("/bin/bash");
    request.add_args("-c");
    request.add_args(script);
    return request;
  }
  Output exec(const v1::ExecRequest& request) {
    grpc::ClientContext context;
    auto stream = stub_->Exec(&context, request);
    Output output;
    for (v1::ExecEvent event; stream->Read(&event);) {
      output.out += event.stdout();
      output.err += event.stderr();
      if (event.has_exited()) output.exit_code = event.exited().exit_code();
    }
    output.status = stream->Finish();
    return output;
  }
  Output exec(const std::string& id, const std::string& script) { return exec(shell(id, script)); }

  // Of a sandbox with a supervisor.
  supervisor::StateReply supervisor_state(const std::string& id) const {
    auto client = supervisor::Client::connect(sandbox_dir(id));
    EXPECT_TRUE(client) << "no supervisor of " << id;
    return *(*client)->state(Milliseconds(5000));
  }
  // From now on the end of the test checks that its processes have gone.
  void remember(const std::string& id) {
    const supervisor::StateReply reply = supervisor_state(id);
    for (const pid_t pid : {reply.supervisor_pid, reply.vmm_pid}) started_.push_back(std::move(*open_pidfd(pid)));
  }

  // A command that a fake guest does not take along when it dies: it ends with the test.
  void ends_with_test(pid_t command) {
    if (auto pidfd = open_pidfd(command)) commands_.push_back(std::move(*pidfd));
  }

  static std::string remedy_of(const grpc::ClientContext& context) {
    const auto& trailing = context.GetServerTrailingMetadata();
    const auto found = trailing.find("stasis-remedy");
    return found == trailing.end() ? "" : std::string(found->second.data(), found->second.size());
  }

  testing::TempDir root_;
  Path bin_;
  std::vector<std::pair<std::string, Path>> more_images_;
  Path files_program_;       // empty: the real one
  bool warm_bases_ = false;  // so that a test's snapshots are those that it asks for
  size_t spares_ = 0;        // so that a test's supervisors are those that it asks for
  std::unique_ptr<Agent> agent_;
  std::optional<Process> program_;
  std::unique_ptr<Stub> stub_;
  std::string remedy_;
  bool told_by_agent_ = false;
  std::vector<UniqueFd> started_;
  std::vector<UniqueFd> commands_;
};

}  // namespace stasis::agent
