// HostAgent over gRPC (proto/agent.proto): translates between messages and Host, nothing else. Errors become statuses
// with the same code; the remedy travels as trailing metadata "stasis-remedy", and "stasis-error" says that this agent
// speaks and not gRPC, which has the same codes.
// Streams are limited, so that they leave threads for the rest: one too many is kResourceExhausted.
#pragma once

#include <atomic>

#include "agent.grpc.pb.h"
#include "agent/host.h"

namespace stasis::agent {

// A failed call, its remedy in the trailing metadata.
grpc::Status answer(grpc::ServerContext* context, const Error& error);
Result<snapshot::SnapshotId> snapshot_id(const std::string& text);

class Service final : public v1::HostAgent::Service {
 public:
  explicit Service(Host& host) : host_(host) {}

  using Context = grpc::ServerContext;
  grpc::Status CreateSandbox(Context*, const v1::CreateSandboxRequest*, v1::SandboxStarted*) override;
  grpc::Status DestroySandbox(Context*, const v1::DestroySandboxRequest*, v1::DestroySandboxReply*) override;
  grpc::Status PauseSandbox(Context*, const v1::PauseSandboxRequest*, v1::SnapshotTaken*) override;
  grpc::Status ResumeSandbox(Context*, const v1::ResumeSandboxRequest*, v1::SandboxStarted*) override;
  grpc::Status ListSandboxes(Context*, const v1::ListSandboxesRequest*, v1::ListSandboxesReply*) override;
  grpc::Status PingSandbox(Context*, const v1::PingSandboxRequest*, v1::PingSandboxReply*) override;
  grpc::Status Exec(Context*, const v1::ExecRequest*, grpc::ServerWriter<v1::ExecEvent>*) override;
  grpc::Status ReadFile(Context*, const v1::ReadFileRequest*, grpc::ServerWriter<v1::FileChunk>*) override;
  grpc::Status WriteFile(Context*, grpc::ServerReader<v1::WriteFileRequest>*, v1::WriteFileReply*) override;
  grpc::Status ListDir(Context*, const v1::PathRequest*, v1::ListDirReply*) override;
  grpc::Status MakeDir(Context*, const v1::PathRequest*, v1::PathReply*) override;
  grpc::Status RemovePath(Context*, const v1::PathRequest*, v1::PathReply*) override;
  grpc::Status CreateSnapshot(Context*, const v1::CreateSnapshotRequest*, v1::SnapshotTaken*) override;
  grpc::Status DeleteSnapshot(Context*, const v1::DeleteSnapshotRequest*, v1::DeleteSnapshotReply*) override;
  grpc::Status ListSnapshots(Context*, const v1::ListSnapshotsRequest*, v1::ListSnapshotsReply*) override;
  grpc::Status GetSandboxMetrics(Context*, const v1::GetSandboxMetricsRequest*, v1::SandboxMetrics*) override;
  grpc::Status ListImages(Context*, const v1::ListImagesRequest*, v1::ListImagesReply*) override;
  // service_pager.cc
  grpc::Status GetPagerMetrics(Context*, const v1::GetPagerMetricsRequest*, v1::PagerMetrics*) override;
  grpc::Status GetRestoreTrace(Context*, const v1::GetRestoreTraceRequest*, v1::RestoreTrace*) override;
  // service_archive.cc
  grpc::Status CompactStore(Context*, const v1::CompactStoreRequest*, v1::CompactStoreReply*) override;
  grpc::Status ExportSnapshot(Context*, const v1::ExportSnapshotRequest*,
                              grpc::ServerWriter<v1::ArchiveChunk>*) override;
  grpc::Status ImportSnapshot(Context*, grpc::ServerReader<v1::ImportSnapshotRequest>*,
                              v1::ImportSnapshotReply*) override;
  grpc::Status DescribeArchive(Context*, const v1::DescribeArchiveRequest*, v1::ArchiveDescription*) override;
  grpc::Status GetKeptImport(Context*, const v1::KeptImportRequest*, v1::KeptImport*) override;
  grpc::Status ForgetKeptImport(Context*, const v1::KeptImportRequest*, v1::ForgetKeptImportReply*) override;
  // service_store.cc
  grpc::Status VerifySnapshots(Context*, const v1::VerifySnapshotsRequest*,
                               grpc::ServerWriter<v1::VerifyEvent>*) override;
  grpc::Status CollectStore(Context*, const v1::CollectStoreRequest*, v1::CollectStoreReply*) override;
  grpc::Status GetStoreUsage(Context*, const v1::GetStoreUsageRequest*, v1::StoreUsage*) override;
  grpc::Status GetScrubState(Context*, const v1::GetScrubStateRequest*, v1::ScrubState*) override;
  grpc::Status InspectSnapshot(Context*, const v1::InspectSnapshotRequest*, v1::SnapshotDetail*) override;
  grpc::Status DiffSnapshots(Context*, const v1::DiffSnapshotsRequest*, v1::SnapshotDiff*) override;

 private:
  static constexpr int kMaxStreams = 128;
  class StreamSlot;
  Host& host_;
  std::atomic<int> streams_{0};
};

// One of the streams that may be open at a time.
class Service::StreamSlot {
 public:
  explicit StreamSlot(Service& service) : service_(service), taken_(++service.streams_ <= kMaxStreams) {}
  ~StreamSlot() { --service_.streams_; }
  StreamSlot(const StreamSlot&) = delete;
  StreamSlot& operator=(const StreamSlot&) = delete;
  bool taken() const { return taken_; }
  static Error none_left() {
    return {Code::kResourceExhausted, "128 commands and transfers are under way on this host", "wait for some to end"};
  }

 private:
  Service& service_;
  bool taken_;
};

}  // namespace stasis::agent
