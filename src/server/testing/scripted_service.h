// The gRPC service of a ScriptedAgent: its table, what a test has turned, and every call of proto/agent.proto that the
// control plane makes. Each call is counted, held and failed by run() before it does its work. Thread-safe, except for
// the table: it is touched under the lock, which run() and with() hold.
#pragma once

#include <grpcpp/grpcpp.h>

#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>

#include "agent.grpc.pb.h"
#include "server/testing/scripted_agent.h"

namespace stasis::server::testing {

// A failed call, as an agent tells it: the trailing metadata says so, and has the remedy.
grpc::Status status_of(const Error& error, grpc::ServerContext& context);
inline grpc::Status failed(grpc::StatusCode code, const std::string& message) { return grpc::Status(code, message); }

class ScriptedService final : public pb::HostAgent::Service {
 public:
  using Context = grpc::ServerContext;
  using Point = ScriptedAgent::Point;

  // What tests turn.
  void fail_calls(const std::string& call, Error error, int times);
  void hold(const std::string& call, Point point);
  void release(const std::string& call);
  void release_all();
  void resume_service();
  bool wait_held(const std::string& call);
  int calls(const std::string& call) const;
  template <typename Body>
  auto with(Body body) const {
    const std::lock_guard lock(mutex_);
    return body();
  }

  // scripted_service_sandboxes.cc
  grpc::Status CreateSandbox(Context*, const pb::CreateSandboxRequest*, pb::SandboxStarted*) override;
  grpc::Status DestroySandbox(Context*, const pb::DestroySandboxRequest*, pb::DestroySandboxReply*) override;
  grpc::Status PauseSandbox(Context*, const pb::PauseSandboxRequest*, pb::SnapshotTaken*) override;
  grpc::Status ResumeSandbox(Context*, const pb::ResumeSandboxRequest*, pb::SandboxStarted*) override;
  grpc::Status ListSandboxes(Context*, const pb::ListSandboxesRequest*, pb::ListSandboxesReply*) override;
  grpc::Status PingSandbox(Context*, const pb::PingSandboxRequest*, pb::PingSandboxReply*) override;
  // scripted_service_guest.cc
  grpc::Status Exec(Context*, const pb::ExecRequest*, grpc::ServerWriter<pb::ExecEvent>*) override;
  grpc::Status ReadFile(Context*, const pb::ReadFileRequest*, grpc::ServerWriter<pb::FileChunk>*) override;
  grpc::Status WriteFile(Context*, grpc::ServerReader<pb::WriteFileRequest>*, pb::WriteFileReply*) override;
  grpc::Status ListDir(Context*, const pb::PathRequest*, pb::ListDirReply*) override;
  grpc::Status MakeDir(Context*, const pb::PathRequest*, pb::PathReply*) override;
  grpc::Status RemovePath(Context*, const pb::PathRequest*, pb::PathReply*) override;
  // scripted_service_snapshots.cc
  grpc::Status CreateSnapshot(Context*, const pb::CreateSnapshotRequest*, pb::SnapshotTaken*) override;
  grpc::Status DeleteSnapshot(Context*, const pb::DeleteSnapshotRequest*, pb::DeleteSnapshotReply*) override;
  grpc::Status ListSnapshots(Context*, const pb::ListSnapshotsRequest*, pb::ListSnapshotsReply*) override;
  grpc::Status ListImages(Context*, const pb::ListImagesRequest*, pb::ListImagesReply*) override;
  grpc::Status ExportSnapshot(Context*, const pb::ExportSnapshotRequest*,
                              grpc::ServerWriter<pb::ArchiveChunk>*) override;
  grpc::Status ImportSnapshot(Context*, grpc::ServerReader<pb::ImportSnapshotRequest>*,
                              pb::ImportSnapshotReply*) override;
  grpc::Status DescribeArchive(Context*, const pb::DescribeArchiveRequest*, pb::ArchiveDescription*) override;
  grpc::Status GetKeptImport(Context*, const pb::KeptImportRequest*, pb::KeptImport*) override;
  grpc::Status ForgetKeptImport(Context*, const pb::KeptImportRequest*, pb::ForgetKeptImportReply*) override;
  // scripted_service_store.cc
  grpc::Status CompactStore(Context*, const pb::CompactStoreRequest*, pb::CompactStoreReply*) override;
  grpc::Status VerifySnapshots(Context*, const pb::VerifySnapshotsRequest*,
                               grpc::ServerWriter<pb::VerifyEvent>*) override;
  grpc::Status CollectStore(Context*, const pb::CollectStoreRequest*, pb::CollectStoreReply*) override;
  grpc::Status GetScrubState(Context*, const pb::GetScrubStateRequest*, pb::ScrubState*) override;
  grpc::Status GetStoreUsage(Context*, const pb::GetStoreUsageRequest*, pb::StoreUsage*) override;
  grpc::Status InspectSnapshot(Context*, const pb::InspectSnapshotRequest*, pb::SnapshotDetail*) override;
  grpc::Status DiffSnapshots(Context*, const pb::DiffSnapshotsRequest*, pb::SnapshotDiff*) override;
  // scripted_service_pager.cc
  grpc::Status GetPagerMetrics(Context*, const pb::GetPagerMetricsRequest*, pb::PagerMetrics*) override;
  grpc::Status GetRestoreTrace(Context*, const pb::GetRestoreTraceRequest*, pb::RestoreTrace*) override;

  // The table.
  std::optional<Error> verify_error_;
  std::map<std::string, ScriptedSandbox> sandboxes_;
  std::map<std::string, ScriptedSnapshot> snapshots_;
  std::map<std::string, std::string> images_;
  std::map<std::string, std::string> kept_imports_;  // by stream: bytes
  std::set<std::string> being_written_;              // ids of snapshots

 private:
  struct Failure {
    Error error;
    int times = 0;
  };
  struct Hold {
    Point point = Point::kBefore;
    int waiting = 0;
  };

  // Every call goes through here: counted, held, failed, then done under the lock.
  grpc::Status run(const std::string& call, Context& context, const std::function<grpc::Status()>& work);
  void wait(std::unique_lock<std::mutex>& lock, const std::string& call, Point point);
  void wait_for_cancel(Context& context);
  // Adds the snapshot to the table.
  void take(const ScriptedSandbox& sandbox, const std::string& id, pb::SnapshotTaken& reply);

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, int> calls_;
  std::map<std::string, Failure> failures_;
  std::map<std::string, Hold> holds_;
  bool stopping_ = false;
};

}  // namespace stasis::server::testing
