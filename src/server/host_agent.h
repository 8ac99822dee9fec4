// What the control plane asks of a host: the calls of proto/agent.proto, behind an interface so that tests can script
// the answers. Thread-safe. Errors are the agent's own; kUnavailable with a remedy if it cannot be reached. Calls that
// write or restore guests have no time limit: they take as long as the pages need.
#pragma once

#include <chrono>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

#include "agent.pb.h"
#include "base/result.h"

namespace stasis::server {

namespace pb = ::stasis::agent::v1;

// Ends a call from another thread.
class Cancellation {
 public:
  void cancel() {
    const std::lock_guard lock(mutex_);
    cancelled_ = true;
    if (action_) action_();
  }
  bool cancelled() const {
    const std::lock_guard lock(mutex_);
    return cancelled_;
  }
  // For whoever makes the call: what ends it, at once if it was cancelled before; nullptr when the call is over.
  void set_action(std::function<void()> action) {
    const std::lock_guard lock(mutex_);
    action_ = std::move(action);
    if (cancelled_ && action_) action_();
  }

 private:
  mutable std::mutex mutex_;
  bool cancelled_ = false;
  std::function<void()> action_;
};

class HostAgentApi {
 public:
  virtual ~HostAgentApi() = default;

  // Waits at most `patience` for a connection. kUnavailable if there is none: then nothing was sent.
  virtual Status check(std::chrono::milliseconds patience) = 0;

  virtual Result<pb::SandboxStarted> create_sandbox(const pb::CreateSandboxRequest& request) = 0;
  virtual Result<pb::DestroySandboxReply> destroy_sandbox(const pb::DestroySandboxRequest& request) = 0;
  virtual Result<pb::SnapshotTaken> pause_sandbox(const pb::PauseSandboxRequest& request) = 0;
  virtual Result<pb::SandboxStarted> resume_sandbox(const pb::ResumeSandboxRequest& request) = 0;
  virtual Result<pb::ListSandboxesReply> list_sandboxes() = 0;
  virtual Result<pb::PingSandboxReply> ping_sandbox(const pb::PingSandboxRequest& request) = 0;

  // `on_event` false: ends the call and with it the command; kCancelled is returned then.
  virtual Status exec(const pb::ExecRequest& request, Cancellation& cancellation,
                      const std::function<bool(const pb::ExecEvent&)>& on_event) = 0;
  // An error of `on_data` ends the call and is returned.
  virtual Status read_file(const pb::ReadFileRequest& request,
                           const std::function<Status(const pb::FileChunk&)>& on_data) = 0;
  // `source` gives the next bytes, nothing at the end; an error of it ends the call and is returned.
  virtual Result<pb::WriteFileReply> write_file(const pb::WriteFileRequest::Open& open,
                                                const std::function<Result<std::string_view>()>& source) = 0;
  virtual Result<pb::ListDirReply> list_dir(const pb::PathRequest& request) = 0;
  virtual Status make_dir(const pb::PathRequest& request) = 0;
  virtual Status remove_path(const pb::PathRequest& request) = 0;

  virtual Result<pb::PagerMetrics> pager_metrics() = 0;
  virtual Result<pb::RestoreTrace> restore_trace(const pb::GetRestoreTraceRequest& request) = 0;

  virtual Result<pb::SnapshotTaken> create_snapshot(const pb::CreateSnapshotRequest& request) = 0;
  // Success if there is none.
  virtual Status delete_snapshot(const std::string& snapshot_id) = 0;
  virtual Result<pb::ListSnapshotsReply> list_snapshots() = 0;
  virtual Result<pb::ListImagesReply> list_images() = 0;

  virtual Result<pb::CompactStoreReply> compact_store(const pb::CompactStoreRequest& request,
                                                      Cancellation& cancellation) = 0;
  // An error of `on_data` ends the call and is returned. kDataLoss if the agent's stream ended without its end.
  virtual Status export_snapshot(const pb::ExportSnapshotRequest& request,
                                 const std::function<Status(std::string_view)>& on_data) = 0;
  // `source` as for write_file.
  virtual Result<pb::ImportSnapshotReply> import_snapshot(const pb::ImportSnapshotRequest::Open& open,
                                                          const std::function<Result<std::string_view>()>& source) = 0;
  virtual Result<pb::ArchiveDescription> describe_archive(const pb::DescribeArchiveRequest& request) = 0;
  virtual Result<pb::KeptImport> kept_import(const std::string& stream) = 0;
  virtual Status forget_kept_import(const std::string& stream) = 0;
  // An error of `on_event` ends the call and is returned.
  virtual Status verify_snapshots(const pb::VerifySnapshotsRequest& request,
                                  const std::function<Status(const pb::VerifyEvent&)>& on_event) = 0;
  virtual Result<pb::CollectStoreReply> collect_store(const pb::CollectStoreRequest& request) = 0;
  virtual Result<pb::StoreUsage> store_usage() = 0;
  virtual Result<pb::ScrubState> scrub_state() = 0;
  virtual Result<pb::SnapshotDetail> inspect_snapshot(const pb::InspectSnapshotRequest& request) = 0;
  virtual Result<pb::SnapshotDiff> diff_snapshots(const pb::DiffSnapshotsRequest& request,
                                                  Cancellation& cancellation) = 0;
};

// True if an error of a call leaves open whether it took effect: the line broke, or nobody waited for the answer.
inline bool outcome_unknown(const Error& error) {
  return error.code == Code::kUnavailable || error.code == Code::kCancelled || error.code == Code::kDeadlineExceeded ||
         error.code == Code::kUnknown;
}

}  // namespace stasis::server
