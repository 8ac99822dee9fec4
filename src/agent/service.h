// HostAgent over gRPC (proto/agent.proto): translates between messages and Host, nothing else. Errors become statuses
// with the same code; the remedy travels as trailing metadata "stasis-remedy".
// Streams are limited, so that they leave threads for the rest: one too many is kResourceExhausted.
#pragma once

#include <atomic>

#include "agent.grpc.pb.h"
#include "agent/host.h"

namespace stasis::agent {

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

 private:
  class StreamSlot;
  Host& host_;
  std::atomic<int> streams_{0};
};

}  // namespace stasis::agent
