// The agent as its server sees it, with a real guest daemon behind fake supervisors.
#include "agent/testing/agent_fixture.h"

namespace stasis::agent {
namespace {

using grpc::StatusCode;
using ::testing::HasSubstr;

using AgentTest = AgentFixture;

std::string new_id() { return Uuid::random().text(); }

TEST_F(AgentTest, ASandboxFromItsCreationToItsEnd) {
  v1::CreateSandboxRequest request = create_request("one");
  request.set_hostname("first-host");
  request.set_access_token("secret");
  (*request.mutable_env())["COLOUR"] = "blue";
  v1::SandboxStarted started;
  const grpc::Status created = create(request, &started);
  ASSERT_TRUE(created.ok()) << created.error_message();
  EXPECT_EQ(started.vcpus(), 1U);
  EXPECT_EQ(started.vmm(), "qemu");
  EXPECT_FALSE(started.has_restore());
  EXPECT_GE(started.times().total_us(), started.times().daemon_answered_us());
  EXPECT_EQ(info("one").state(), "running");
  EXPECT_EQ(info("one").base_snapshot_id(), request.snapshot_id());

  const Output output = exec("one", "echo $COLOUR; echo no >&2; exit 7");
  ASSERT_TRUE(output.status.ok()) << output.status.error_message();
  EXPECT_EQ(output.out, "blue\n");
  EXPECT_EQ(output.err, "no\n");
  EXPECT_EQ(output.exit_code, 7);
  std::ifstream hostname(sandbox_dir("one") / "root/etc/hostname");
  std::string name;
  hostname >> name;
  EXPECT_EQ(name, "first-host");

  const std::string snapshot = new_id();
  v1::SnapshotTaken taken;
  const grpc::Status paused = pause("one", snapshot, &taken);
  ASSERT_TRUE(paused.ok()) << paused.error_message();
  EXPECT_EQ(taken.snapshot_id(), snapshot);
  EXPECT_EQ(taken.memory_mb(), 128U);
  EXPECT_EQ(taken.disk_bytes(), 1U << 20);
  EXPECT_FALSE(taken.has_live());
  EXPECT_EQ(list().sandboxes_size(), 0);
  EXPECT_FALSE(std::filesystem::exists(sandbox_dir("one")));
  EXPECT_EQ(pause("one", new_id()).error_code(), StatusCode::NOT_FOUND);

  const grpc::Status resumed = resume("one", snapshot);
  ASSERT_TRUE(resumed.ok()) << resumed.error_message();
  EXPECT_EQ(info("one").memory_mb(), 128U);
  EXPECT_FALSE(std::filesystem::exists(sandbox_dir("one") / "root/etc/machine-id"))
      << "a resumed machine keeps its identity";
  bool existed = false;
  EXPECT_TRUE(destroy("one", &existed).ok());
  EXPECT_TRUE(existed);
  EXPECT_TRUE(destroy("one", &existed).ok());
  EXPECT_FALSE(existed);
}

TEST_F(AgentTest, WrongRequestsAreRefusedBeforeAnythingStarts) {
  v1::CreateSandboxRequest request = create_request("Not-An-Id");
  EXPECT_EQ(create(request).error_code(), StatusCode::INVALID_ARGUMENT);
  request.set_sandbox_id("../x");
  EXPECT_EQ(create(request).error_code(), StatusCode::INVALID_ARGUMENT);
  request = create_request("a");
  request.set_snapshot_id(new_id());
  EXPECT_EQ(create(request).error_code(), StatusCode::NOT_FOUND);
  request.set_snapshot_id("nonsense");
  EXPECT_EQ(create(request).error_code(), StatusCode::INVALID_ARGUMENT);
  request = create_request("a");
  request.set_vcpus(0);
  EXPECT_EQ(create(request).error_code(), StatusCode::INVALID_ARGUMENT);
  request = create_request("a");
  request.set_memory_mb(1 << 30);
  EXPECT_EQ(create(request).error_code(), StatusCode::INVALID_ARGUMENT);
  request = create_request("a");
  request.set_hostname("-x");
  EXPECT_EQ(create(request).error_code(), StatusCode::INVALID_ARGUMENT);
  request = create_request("a");
  (*request.mutable_env())["BIG"] = std::string(200'000, 'x');
  EXPECT_EQ(create(request).error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(remedy_, HasSubstr("file of the sandbox"));
  EXPECT_EQ(list().sandboxes_size(), 0);
  EXPECT_TRUE(std::filesystem::is_empty(state() / "sandboxes"));
}

TEST_F(AgentTest, ASandboxFromASnapshotHasItsShape) {
  ASSERT_TRUE(create("one").ok());
  const std::string snapshot = new_id();
  v1::SnapshotTaken taken;
  ASSERT_TRUE(take_snapshot("one", snapshot, &taken).ok());
  EXPECT_EQ(taken.live().last_round_bytes(), 4096U);
  EXPECT_EQ(taken.live().reason(), "asked a stopped machine");
  EXPECT_EQ(create("one").error_code(), StatusCode::ALREADY_EXISTS);
  v1::CreateSandboxRequest request;
  request.set_sandbox_id("two");
  request.set_snapshot_id(snapshot);
  request.set_memory_mb(256);
  EXPECT_EQ(create(request).error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(remedy_, HasSubstr("leave vcpus and memory out"));
  request.set_memory_mb(0);
  v1::SandboxStarted started;
  ASSERT_TRUE(create(request, &started).ok());
  EXPECT_EQ(started.memory_mb(), 128U);
  EXPECT_EQ(started.restore().method(), "uffd");
  EXPECT_TRUE(std::filesystem::exists(fake() / "two.answers")) << "its supervisor is told when its daemon answers";
  std::ifstream machine_id(sandbox_dir("two") / "root/etc/machine-id");
  std::string text;
  machine_id >> text;
  EXPECT_EQ(text.size(), 32U) << "a clone is another machine";
}

TEST_F(AgentTest, FilesAndDirectories) {
  ASSERT_TRUE(create("one").ok());
  const Path inside = root_.path() / "guest";
  const std::string file = inside / "a/b.bin";
  std::string content(3'000'000, '\0');
  for (size_t i = 0; i < content.size(); ++i) content[i] = static_cast<char>(i * 7 + i / 251);
  {
    grpc::ClientContext context;
    v1::WriteFileReply reply;
    auto writer = stub_->WriteFile(&context, &reply);
    v1::WriteFileRequest part;
    part.mutable_open()->set_sandbox_id("one");
    part.mutable_open()->set_path(file);
    writer->Write(part);
    for (size_t at = 0; at < content.size(); at += 100'000) {
      part.set_data(content.substr(at, 100'000));
      writer->Write(part);
    }
    writer->WritesDone();
    const grpc::Status written = writer->Finish();
    ASSERT_TRUE(written.ok()) << written.error_message();
    EXPECT_EQ(reply.bytes(), content.size());
  }
  const auto read = [&](const std::string& path, std::string& got, uint64_t& size) {
    grpc::ClientContext context;
    v1::ReadFileRequest request;
    request.set_sandbox_id("one");
    request.set_path(path);
    auto reader = stub_->ReadFile(&context, request);
    for (v1::FileChunk chunk; reader->Read(&chunk);) {
      got += chunk.data();
      size = std::max<uint64_t>(size, chunk.size());
    }
    return reader->Finish();
  };
  std::string got;
  uint64_t size = 0;
  ASSERT_TRUE(read(file, got, size).ok());
  EXPECT_EQ(size, content.size());
  EXPECT_TRUE(got == content);
  EXPECT_EQ(read(inside / "missing", got, size).error_code(), StatusCode::NOT_FOUND);

  v1::PathRequest path;
  path.set_sandbox_id("one");
  path.set_path(inside / "new");
  v1::PathReply nothing;
  grpc::ClientContext make;
  EXPECT_TRUE(stub_->MakeDir(&make, path, &nothing).ok());
  grpc::ClientContext again;
  EXPECT_EQ(stub_->MakeDir(&again, path, &nothing).error_code(), StatusCode::ALREADY_EXISTS);
  path.set_path(inside);
  v1::ListDirReply entries;
  grpc::ClientContext listing;
  ASSERT_TRUE(stub_->ListDir(&listing, path, &entries).ok());
  ASSERT_EQ(entries.entries_size(), 2);
  EXPECT_EQ(entries.entries(0).type(), "directory");
  grpc::ClientContext removal;
  EXPECT_TRUE(stub_->RemovePath(&removal, path, &nothing).ok());
  EXPECT_FALSE(std::filesystem::exists(inside));
}

TEST_F(AgentTest, MoreInputThanFitsAnywhereComesBack) {
  ASSERT_TRUE(create("one").ok());
  v1::ExecRequest request = shell("one", "cat");
  request.set_stdin(std::string(3'900'000, 'z'));
  const Output output = exec(request);
  ASSERT_TRUE(output.status.ok()) << output.status.error_message();
  EXPECT_TRUE(output.out == request.stdin()) << output.out.size();
  request.set_args(1, "exit 3");  // reads nothing
  EXPECT_EQ(exec(request).exit_code, 3);
}

TEST_F(AgentTest, ErrorsOfACommand) {
  ASSERT_TRUE(create("one").ok());
  v1::ExecRequest request = shell("one", "true");
  request.set_cwd("/no/such/directory");
  EXPECT_EQ(exec(request).status.error_code(), StatusCode::INVALID_ARGUMENT);
  request = shell("one", "sleep 1000");
  request.set_timeout_ms(50);
  EXPECT_EQ(exec(request).status.error_code(), StatusCode::DEADLINE_EXCEEDED);
  request = shell("one", "true");
  request.set_user("nosuch");
  const grpc::Status nobody = exec(request).status;
  EXPECT_EQ(nobody.error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(nobody.error_message(), HasSubstr("invalid username: 'nosuch'"));
  EXPECT_EQ(exec("one", "kill -9 $$").exit_code, -1);
  EXPECT_EQ(exec("two", "true").status.error_code(), StatusCode::NOT_FOUND);
}

TEST_F(AgentTest, ACancelledCallKillsTheCommand) {
  ASSERT_TRUE(create("one").ok());
  grpc::ClientContext context;
  auto stream = stub_->Exec(&context, shell("one", "yes"));  // never silent: the cancel must be seen all the same
  v1::ExecEvent event;
  ASSERT_TRUE(stream->Read(&event));
  ASSERT_TRUE(event.has_started_pid());
  const auto command =
      open_pidfd(static_cast<pid_t>(event.started_pid()));  // the fake guest shares our process numbers
  ASSERT_TRUE(command);
  context.TryCancel();
  EXPECT_TRUE(*wait_readable(command->get(), Deadline::after(Milliseconds(10'000))));
  EXPECT_EQ(stream->Finish().error_code(), StatusCode::CANCELLED);
}

TEST_F(AgentTest, PingMovesTheDeadlineAndTheDeadlineEndsTheSandbox) {
  v1::CreateSandboxRequest request = create_request("one");
  request.set_timeout_sec(1000);
  ASSERT_TRUE(create(request).ok());
  const int64_t before = info("one").deadline_unix_ms();
  v1::PingSandboxRequest ping;
  ping.set_sandbox_id("one");
  v1::PingSandboxReply reply;
  grpc::ClientContext first;
  ASSERT_TRUE(stub_->PingSandbox(&first, ping, &reply).ok());
  EXPECT_EQ(reply.deadline_unix_ms(), before);
  EXPECT_GT(reply.round_trip_us(), 0U);
  ping.set_timeout_sec(1);
  grpc::ClientContext second;
  ASSERT_TRUE(stub_->PingSandbox(&second, ping, &reply).ok());
  EXPECT_LT(reply.deadline_unix_ms(), before);
  EXPECT_TRUE(eventually([&] { return info("one").state() == "dead"; }));
  EXPECT_EQ(info("one").reason(), "timeout");
  EXPECT_EQ(exec("one", "true").status.error_code(), StatusCode::FAILED_PRECONDITION);
}

TEST_F(AgentTest, OneThatDoesNotEndLeavesTheOthersTheirDeadline) {
  ASSERT_TRUE(create("one").ok());
  ASSERT_TRUE(create("two").ok());
  const pid_t supervisor = supervisor_state("one").supervisor_pid;
  for (const char* id : {"one", "two"}) {
    v1::PingSandboxRequest ping;
    ping.set_sandbox_id(id);
    ping.set_timeout_sec(1);
    v1::PingSandboxReply reply;
    grpc::ClientContext context;
    ASSERT_TRUE(stub_->PingSandbox(&context, ping, &reply).ok());
    ASSERT_EQ(kill(supervisor, SIGSTOP), 0);
  }
  EXPECT_TRUE(eventually([&] { return info("two").state() == "dead"; }));
  EXPECT_EQ(info("one").state(), "running") << "it is asked for five seconds, and then killed";
  EXPECT_TRUE(eventually([&] { return info("one").state() == "dead"; }));
}

TEST_F(AgentTest, Metrics) {
  ASSERT_TRUE(create("one").ok());
  grpc::ClientContext context;
  v1::GetSandboxMetricsRequest request;
  request.set_sandbox_id("one");
  v1::SandboxMetrics metrics;
  ASSERT_TRUE(stub_->GetSandboxMetrics(&context, request, &metrics).ok());
  EXPECT_GT(metrics.vmm_rss_bytes(), 0U);
  EXPECT_GT(metrics.supervisor_rss_bytes(), 0U);
  EXPECT_EQ(metrics.supervisor_pid(), supervisor_state("one").supervisor_pid);
}

TEST_F(AgentTest, ThePageServersOfAllSandboxesAreAddedUpAndNeverGoBack) {
  const auto metrics = [&] {
    grpc::ClientContext context;
    v1::PagerMetrics reply;
    EXPECT_TRUE(stub_->GetPagerMetrics(&context, {}, &reply).ok());
    return reply;
  };
  EXPECT_EQ(metrics().faults_size(), 0);
  ASSERT_TRUE(create("one").ok());
  ASSERT_TRUE(create("two").ok());
  v1::PagerMetrics both = metrics();  // 11 faults each
  ASSERT_EQ(both.faults_size(), 1);
  EXPECT_EQ(both.faults(0).kind() + both.faults(0).cause() + both.faults(0).outcome(), "readabsentcopied");
  EXPECT_EQ(both.faults(0).count(), 22U);
  EXPECT_EQ(both.service_buckets(3), 22U);
  EXPECT_EQ(both.service_ns(), 10'000U);
  std::string pages;
  for (const v1::PagesCame& row : both.pages()) {
    pages += row.how() + (row.zeros() ? " of zeros " : " ") + std::to_string(row.pages()) + ", ";
  }
  EXPECT_EQ(pages, "fault 22, around of zeros 62, prefetch 64, background 66, mapped 68, copied 70, ");
  ASSERT_EQ(both.sources_size(), 2);
  EXPECT_EQ(both.sources(0).layer(), "zeros");
  EXPECT_EQ(both.sources(0).bytes(), 1024U);
  EXPECT_EQ(both.sources(1).layer(), "layers");
  EXPECT_EQ(both.sources(1).bytes(), 22U * 4096 + 2 * 1024);
  EXPECT_EQ(both.parked(), 2U);
  EXPECT_EQ(both.prefetch_left_bytes(), 40U);
  EXPECT_EQ(both.load_left_bytes(), 600U);
  EXPECT_EQ(both.fetching_frames(), 14U);
  EXPECT_EQ(both.largest_batch(), 64U) << "the largest, and no sum";
  ASSERT_TRUE(destroy("one").ok());  // it leaves 12 behind
  both = metrics();                  // and the other has 12 too
  EXPECT_EQ(both.faults(0).count(), 24U);
  EXPECT_EQ(both.parked(), 1U) << "a queue ends with its sandbox";
  EXPECT_EQ(both.prefetch_left_bytes(), 20U);
  EXPECT_EQ(both.load_left_bytes(), 300U);
  EXPECT_EQ(both.fetching_frames(), 7U);
  kill(supervisor_state("two").supervisor_pid, SIGKILL);
  EXPECT_TRUE(eventually([&] { return info("two").state() == "dead"; }));
  EXPECT_EQ(metrics().faults(0).count(), 24U) << "as it was last seen";
  ASSERT_TRUE(destroy("two").ok());
  EXPECT_EQ(metrics().faults(0).count(), 24U);
}

TEST_F(AgentTest, ASupervisorThatDoesNotReportHoldsNothingUp) {
  misbehave("one", "no-report");
  ASSERT_TRUE(create("one").ok());
  ASSERT_TRUE(create("two").ok());
  grpc::ClientContext context;
  v1::PagerMetrics reply;
  ASSERT_TRUE(stub_->GetPagerMetrics(&context, {}, &reply).ok());
  ASSERT_EQ(reply.faults_size(), 1);
  EXPECT_EQ(reply.faults(0).count(), 11U);
  go("one");
}

TEST_F(AgentTest, ATraceIsWhatTheSupervisorTells) {
  ASSERT_TRUE(create("one").ok());
  v1::GetRestoreTraceRequest request;
  request.set_sandbox_id("one");
  grpc::ClientContext context;
  v1::RestoreTrace trace;
  ASSERT_TRUE(stub_->GetRestoreTrace(&context, request, &trace).ok());
  EXPECT_EQ(trace.method(), "uffd");
  const v1::PagerMetrics& metrics = trace.metrics();
  EXPECT_TRUE(std::ranges::any_of(metrics.sources(), [](const auto& source) { return source.layer() == "c0ffee"; }));
  ASSERT_EQ(trace.events_size(), 1);
  EXPECT_EQ(trace.events(0).when_us(), 7U);
  EXPECT_EQ(trace.events(0).length(), 8192U);
  EXPECT_EQ(trace.events(0).how(), "around");
  EXPECT_TRUE(trace.events(0).zeros());
  EXPECT_EQ(trace.left_out(), 1U);
  request.set_sandbox_id("nobody");
  grpc::ClientContext second;
  EXPECT_EQ(stub_->GetRestoreTrace(&second, request, &trace).error_code(), StatusCode::NOT_FOUND);
}

TEST_F(AgentTest, DeletingASnapshot) {
  ASSERT_TRUE(create("one").ok());
  const std::string snapshot = new_id();
  ASSERT_TRUE(take_snapshot("one", snapshot).ok());
  EXPECT_EQ(take_snapshot("one", snapshot).error_code(), StatusCode::ALREADY_EXISTS);
  EXPECT_TRUE(std::filesystem::exists(state() / "tokens" / snapshot)) << "the refused one took the token away";
  EXPECT_TRUE(has_snapshot(snapshot));
  const auto remove = [&](const std::string& id) {
    grpc::ClientContext context;
    v1::DeleteSnapshotRequest request;
    request.set_snapshot_id(id);
    v1::DeleteSnapshotReply reply;
    return stub_->DeleteSnapshot(&context, request, &reply).error_code();
  };
  EXPECT_EQ(remove(snapshot), StatusCode::OK);
  EXPECT_FALSE(has_snapshot(snapshot));
  EXPECT_FALSE(std::filesystem::exists(state() / "tokens" / snapshot));
  EXPECT_EQ(remove(snapshot), StatusCode::NOT_FOUND);
  EXPECT_EQ(remove(base_image()), StatusCode::FAILED_PRECONDITION);
}

TEST_F(AgentTest, AnImageIsImportedAgainOnlyWhenItChanged) {
  const std::string first = base_image();
  stop_agent();
  start_agent();
  EXPECT_EQ(base_image(), first);
  stop_agent();
  make_image("second");
  start_agent();
  EXPECT_NE(base_image(), first);
  EXPECT_FALSE(has_snapshot(first));
}

TEST_F(AgentTest, AnImageThatIsNotNamedAnyMoreIsRemoved) {
  const auto stored = [&] { return real_file_system().list(state() / "store" / "snapshots")->size(); };
  const std::string base = base_image();
  stop_agent();
  more_images_ = {{"other", image()}};
  start_agent();
  EXPECT_EQ(stored(), 2U);
  stop_agent();
  more_images_.clear();
  start_agent();
  EXPECT_EQ(base_image(), base);
  EXPECT_EQ(stored(), 1U);
}

TEST_F(AgentTest, OneAgentForEachStateDirectory) {
  const auto second = Agent::start(options());
  ASSERT_FALSE(second);
  EXPECT_THAT(second.error().message, HasSubstr("another agent"));
  EXPECT_EQ(std::filesystem::status(options().socket).permissions(), std::filesystem::perms(0600));
  EXPECT_NE(base_image(), "") << "the first one still serves";
}

}  // namespace
}  // namespace stasis::agent
