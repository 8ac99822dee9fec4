#include "server/grpc_agent.h"

#include <grpcpp/grpcpp.h>

#include <optional>
#include <set>

#include "agent.grpc.pb.h"

namespace stasis::server {
namespace {

using std::chrono::milliseconds;
using Stub = pb::HostAgent::Stub;

constexpr milliseconds kShort{30'000};
constexpr milliseconds kMetrics{5'000};  // who collects them gives up soon
constexpr milliseconds kFiles{120'000};
constexpr std::optional<milliseconds> kAsLongAsItTakes = std::nullopt;
constexpr int kMaxReply = 64 << 20;  // a directory with very many entries

Error error_of(const grpc::Status& status, const grpc::ClientContext& context) {
  Error error{static_cast<Code>(status.error_code()), status.error_message(), ""};
  const auto& trailer = context.GetServerTrailingMetadata();
  if (const auto found = trailer.find("stasis-remedy"); found != trailer.end()) {
    error.remedy = std::string(found->second.data(), found->second.size());
  }
  if (error.code == Code::kUnavailable && !trailer.contains("stasis-error")) {
    error.message = "the host agent does not answer: " + error.message;
    error.remedy = "is it running? 'stasis up' runs server and agent; a restart takes a moment, then try again";
  }
  return error;
}

grpc::ChannelArguments channel_arguments() {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxReply);
  arguments.SetMaxSendMessageSize(kMaxReply);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  // A connection of its own, also where one process has several of these (tests).
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return arguments;
}

class Client final : public GrpcAgent {
 public:
  explicit Client(const Path& socket)
      : channel_(grpc::CreateCustomChannel("unix:" + socket.string(), grpc::InsecureChannelCredentials(),
                                           channel_arguments())),
        stub_(pb::HostAgent::NewStub(channel_)),
        socket_(socket) {}

  void shut_down() override {
    const std::lock_guard lock(mutex_);
    shut_down_ = true;
    for (grpc::ClientContext* context : contexts_) context->TryCancel();
  }

  Status check(milliseconds patience) override {
    if (channel_->WaitForConnected(std::chrono::system_clock::now() + patience)) return {};
    return fail(Code::kUnavailable, "the host agent does not answer on " + socket_.string(),
                "is it running? 'stasis up' runs server and agent; a restart takes a moment, then try again");
  }

  Result<pb::SandboxStarted> create_sandbox(const pb::CreateSandboxRequest& request) override {
    return call<pb::SandboxStarted>(&Stub::CreateSandbox, request, kAsLongAsItTakes);
  }
  Result<pb::DestroySandboxReply> destroy_sandbox(const pb::DestroySandboxRequest& request) override {
    return call<pb::DestroySandboxReply>(&Stub::DestroySandbox, request, kAsLongAsItTakes);
  }
  Result<pb::SnapshotTaken> pause_sandbox(const pb::PauseSandboxRequest& request) override {
    return call<pb::SnapshotTaken>(&Stub::PauseSandbox, request, kAsLongAsItTakes);
  }
  Result<pb::SandboxStarted> resume_sandbox(const pb::ResumeSandboxRequest& request) override {
    return call<pb::SandboxStarted>(&Stub::ResumeSandbox, request, kAsLongAsItTakes);
  }
  Result<pb::ListSandboxesReply> list_sandboxes() override {
    return call<pb::ListSandboxesReply>(&Stub::ListSandboxes, pb::ListSandboxesRequest(), kShort);
  }
  Result<pb::PingSandboxReply> ping_sandbox(const pb::PingSandboxRequest& request) override {
    return call<pb::PingSandboxReply>(&Stub::PingSandbox, request, kShort);
  }
  Result<pb::PagerMetrics> pager_metrics() override {
    return call<pb::PagerMetrics>(&Stub::GetPagerMetrics, pb::GetPagerMetricsRequest(), kMetrics);
  }
  Result<pb::RestoreTrace> restore_trace(const pb::GetRestoreTraceRequest& request) override {
    return call<pb::RestoreTrace>(&Stub::GetRestoreTrace, request, kShort);
  }
  Result<pb::ListDirReply> list_dir(const pb::PathRequest& request) override {
    return call<pb::ListDirReply>(&Stub::ListDir, request, kFiles);
  }
  Status make_dir(const pb::PathRequest& request) override {
    STASIS_TRY(call<pb::PathReply>(&Stub::MakeDir, request, kFiles));
    return {};
  }
  Status remove_path(const pb::PathRequest& request) override {
    STASIS_TRY(call<pb::PathReply>(&Stub::RemovePath, request, kFiles));
    return {};
  }
  Result<pb::SnapshotTaken> create_snapshot(const pb::CreateSnapshotRequest& request) override {
    return call<pb::SnapshotTaken>(&Stub::CreateSnapshot, request, kAsLongAsItTakes);
  }
  Status delete_snapshot(const std::string& snapshot_id) override {
    pb::DeleteSnapshotRequest request;
    request.set_snapshot_id(snapshot_id);
    auto reply = call<pb::DeleteSnapshotReply>(&Stub::DeleteSnapshot, request, kAsLongAsItTakes);
    if (!reply && reply.error().code != Code::kNotFound) return fail(std::move(reply).error());
    return {};
  }
  Result<pb::ListSnapshotsReply> list_snapshots() override {
    return call<pb::ListSnapshotsReply>(&Stub::ListSnapshots, pb::ListSnapshotsRequest(), kShort);
  }
  Status verify_snapshots(const pb::VerifySnapshotsRequest& request,
                          const std::function<Status(const pb::VerifyEvent&)>& on_event) override {
    return read_stream<pb::VerifyEvent>(&Stub::VerifySnapshots, request, on_event);
  }
  Result<pb::CollectStoreReply> collect_store(const pb::CollectStoreRequest& request) override {
    return call<pb::CollectStoreReply>(&Stub::CollectStore, request, kAsLongAsItTakes);
  }
  Result<pb::StoreUsage> store_usage() override {
    return call<pb::StoreUsage>(&Stub::GetStoreUsage, pb::GetStoreUsageRequest(), kFiles);
  }
  Result<pb::ScrubState> scrub_state() override {
    return call<pb::ScrubState>(&Stub::GetScrubState, pb::GetScrubStateRequest(), kMetrics);
  }
  Result<pb::SnapshotDetail> inspect_snapshot(const pb::InspectSnapshotRequest& request) override {
    return call<pb::SnapshotDetail>(&Stub::InspectSnapshot, request, kFiles);
  }
  Result<pb::SnapshotDiff> diff_snapshots(const pb::DiffSnapshotsRequest& request,
                                          Cancellation& cancellation) override {
    return call<pb::SnapshotDiff>(&Stub::DiffSnapshots, request, kAsLongAsItTakes, &cancellation);
  }
  Result<pb::ListImagesReply> list_images() override {
    return call<pb::ListImagesReply>(&Stub::ListImages, pb::ListImagesRequest(), kShort);
  }

  Status exec(const pb::ExecRequest& request, Cancellation& cancellation,
              const std::function<bool(const pb::ExecEvent&)>& on_event) override {
    Call scope(*this);
    STASIS_TRY(scope.status());
    cancellation.set_action([&] { scope.context().TryCancel(); });
    auto reader = stub_->Exec(&scope.context(), request);
    pb::ExecEvent event;
    while (reader->Read(&event)) {
      if (!on_event(event)) scope.context().TryCancel();
    }
    const grpc::Status status = reader->Finish();
    cancellation.set_action(nullptr);
    if (!status.ok()) return fail(error_of(status, scope.context()));
    return {};
  }

  Status read_file(const pb::ReadFileRequest& request,
                   const std::function<Status(const pb::FileChunk&)>& on_data) override {
    return read_stream<pb::FileChunk>(&Stub::ReadFile, request, on_data);
  }

  Result<pb::WriteFileReply> write_file(const pb::WriteFileRequest::Open& open,
                                        const std::function<Result<std::string_view>()>& source) override {
    Call scope(*this);
    STASIS_TRY(scope.status());
    pb::WriteFileReply reply;
    pb::WriteFileRequest part;
    *part.mutable_open() = open;
    STASIS_TRY(send(scope, stub_->WriteFile(&scope.context(), &reply), part, source));
    return reply;
  }

  Result<pb::CompactStoreReply> compact_store(const pb::CompactStoreRequest& request,
                                              Cancellation& cancellation) override {
    Call scope(*this);
    STASIS_TRY(scope.status());
    cancellation.set_action([&] { scope.context().TryCancel(); });
    pb::CompactStoreReply reply;
    const grpc::Status status = stub_->CompactStore(&scope.context(), request, &reply);
    cancellation.set_action(nullptr);
    if (!status.ok()) return fail(error_of(status, scope.context()));
    return reply;
  }

  Status export_snapshot(const pb::ExportSnapshotRequest& request,
                         const std::function<Status(std::string_view)>& on_data) override {
    Call scope(*this);
    STASIS_TRY(scope.status());
    auto reader = stub_->ExportSnapshot(&scope.context(), request);
    pb::ArchiveChunk chunk;
    Status taken;
    while (taken && reader->Read(&chunk)) taken = on_data(chunk.data());
    if (!taken) scope.context().TryCancel();
    const grpc::Status status = reader->Finish();
    if (!taken) return taken;
    if (!status.ok()) return fail(error_of(status, scope.context()));
    if (chunk.total() == 0) return fail(Code::kDataLoss, "the host agent's archive has no end");
    return {};
  }

  Result<pb::ImportSnapshotReply> import_snapshot(const pb::ImportSnapshotRequest::Open& open,
                                                  const std::function<Result<std::string_view>()>& source) override {
    Call scope(*this);
    STASIS_TRY(scope.status());
    pb::ImportSnapshotReply reply;
    pb::ImportSnapshotRequest part;
    *part.mutable_open() = open;
    STASIS_TRY(send(scope, stub_->ImportSnapshot(&scope.context(), &reply), part, source));
    return reply;
  }
  Result<pb::ArchiveDescription> describe_archive(const pb::DescribeArchiveRequest& request) override {
    return call<pb::ArchiveDescription>(&Stub::DescribeArchive, request, kShort);
  }
  Result<pb::KeptImport> kept_import(const std::string& stream) override {
    pb::KeptImportRequest request;
    request.set_stream(stream);
    return call<pb::KeptImport>(&Stub::GetKeptImport, request, kShort);
  }
  Status forget_kept_import(const std::string& stream) override {
    pb::KeptImportRequest request;
    request.set_stream(stream);
    STASIS_TRY(call<pb::ForgetKeptImportReply>(&Stub::ForgetKeptImport, request, kFiles));
    return {};
  }

 private:
  // One call: known to shut_down() as long as it lasts.
  class Call {
   public:
    explicit Call(Client& client) : client_(client) {
      const std::lock_guard lock(client_.mutex_);
      refused_ = client_.shut_down_;
      client_.contexts_.insert(&context_);
    }
    ~Call() {
      const std::lock_guard lock(client_.mutex_);
      client_.contexts_.erase(&context_);
    }
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;

    grpc::ClientContext& context() { return context_; }
    Status status() const {
      if (refused_) return fail(Code::kCancelled, "the server is stopping", "try again when it has started again");
      return {};
    }

   private:
    Client& client_;
    grpc::ClientContext context_;
    bool refused_ = false;
  };

  // The first message, then what `source` gives.
  template <typename Part>
  static Status send(Call& scope, std::unique_ptr<grpc::ClientWriter<Part>> writer, Part& part,
                     const std::function<Result<std::string_view>()>& source) {
    Status given;
    while (writer->Write(part)) {  // false: the agent has ended the call, and Finish says why
      const Result<std::string_view> bytes = source();
      if (!bytes) {
        given = fail(bytes.error());
        scope.context().TryCancel();
        break;
      }
      if (bytes->empty()) break;
      part.set_data(std::string(*bytes));
    }
    writer->WritesDone();
    const grpc::Status status = writer->Finish();
    if (!given) return given;
    if (!status.ok()) return fail(error_of(status, scope.context()));
    return {};
  }

  template <typename Reply, typename Request>
  Result<Reply> call(grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Reply*), const Request& request,
                     std::optional<milliseconds> limit, Cancellation* cancellation = nullptr) {
    Call scope(*this);
    STASIS_TRY(scope.status());
    if (limit) scope.context().set_deadline(std::chrono::system_clock::now() + *limit);
    if (cancellation != nullptr) cancellation->set_action([&] { scope.context().TryCancel(); });
    Reply reply;
    const grpc::Status status = (stub_.get()->*method)(&scope.context(), request, &reply);
    if (cancellation != nullptr) cancellation->set_action(nullptr);
    if (!status.ok()) return fail(error_of(status, scope.context()));
    return reply;
  }

  // Hands out what comes; an error of `on_message` ends the call and is returned.
  template <typename Message, typename Request>
  Status read_stream(std::unique_ptr<grpc::ClientReader<Message>> (Stub::*method)(grpc::ClientContext*, const Request&),
                     const Request& request, const std::function<Status(const Message&)>& on_message) {
    Call scope(*this);
    STASIS_TRY(scope.status());
    const auto reader = (stub_.get()->*method)(&scope.context(), request);
    Message message;
    Status taken;
    while (taken && reader->Read(&message)) taken = on_message(message);
    if (!taken) scope.context().TryCancel();
    const grpc::Status status = reader->Finish();
    if (!taken) return taken;
    if (!status.ok()) return fail(error_of(status, scope.context()));
    return {};
  }

  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<Stub> stub_;
  Path socket_;
  std::mutex mutex_;
  std::set<grpc::ClientContext*> contexts_;
  bool shut_down_ = false;
};

}  // namespace

std::unique_ptr<GrpcAgent> connect_agent(const Path& socket) { return std::make_unique<Client>(socket); }

}  // namespace stasis::server
