#include "server/testing/scripted_agent.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <chrono>
#include <optional>

#include "agent.grpc.pb.h"
#include "base/clock.h"

namespace stasis::server::testing {
namespace {

using grpc::ServerContext;
using grpc::Status;

constexpr std::chrono::seconds kPatience{10};

Status status_of(const Error& error, ServerContext& context) {
  if (!error.remedy.empty()) context.AddTrailingMetadata("stasis-remedy", error.remedy);
  return Status(static_cast<grpc::StatusCode>(error.code), error.message);
}

Status failed(grpc::StatusCode code, const std::string& message) { return Status(code, message); }

void fill(pb::GenerationStats& stats, uint64_t stored) {
  stats.set_generation(0);
  stats.set_compared_bytes(stored * 2);
  stats.set_stored_bytes(stored);
}

}  // namespace

class ScriptedAgent::Service final : public pb::HostAgent::Service {
 public:
  // --- what tests turn ---
  void fail_calls(const std::string& call, Error error, int times) {
    const std::lock_guard lock(mutex_);
    failures_[call] = {std::move(error), times};
  }
  void hold(const std::string& call, Point point) {
    const std::lock_guard lock(mutex_);
    holds_[call] = {point, 0};
  }
  void release(const std::string& call) {
    const std::lock_guard lock(mutex_);
    holds_.erase(call);
    changed_.notify_all();
  }
  void release_all() {
    const std::lock_guard lock(mutex_);
    holds_.clear();
    stopping_ = true;
    changed_.notify_all();
  }
  void resume_service() {
    const std::lock_guard lock(mutex_);
    stopping_ = false;
  }
  bool wait_held(const std::string& call) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kPatience, [&] {
      const auto found = holds_.find(call);
      return found != holds_.end() && found->second.waiting > 0;
    });
  }
  int calls(const std::string& call) const {
    const std::lock_guard lock(mutex_);
    const auto found = calls_.find(call);
    return found == calls_.end() ? 0 : found->second;
  }
  template <typename Body>
  auto with(Body body) const {
    const std::lock_guard lock(mutex_);
    return body();
  }

  // --- the service ---
  Status CreateSandbox(ServerContext* context, const pb::CreateSandboxRequest* request,
                       pb::SandboxStarted* reply) override {
    return run("CreateSandbox", *context, [&]() -> Status {
      const auto snapshot = snapshots_.find(request->snapshot_id());
      if (snapshot == snapshots_.end()) return failed(grpc::NOT_FOUND, "no snapshot " + request->snapshot_id());
      if (sandboxes_.contains(request->sandbox_id())) return failed(grpc::ALREADY_EXISTS, "the id is in use");
      const bool image = snapshot->second.kind == "image";
      if (!image && (request->vcpus() != 0 || request->memory_mb() != 0 || request->disk_mb() != 0)) {
        return failed(grpc::INVALID_ARGUMENT, "a snapshot has its own shape");
      }
      ScriptedSandbox sandbox;
      sandbox.vcpus = image ? request->vcpus() : snapshot->second.vcpus;
      sandbox.memory_mb = image ? request->memory_mb() : snapshot->second.memory_mb;
      sandbox.disk_bytes = request->disk_mb() == 0 ? snapshot->second.disk_bytes : uint64_t{request->disk_mb()} << 20;
      sandbox.files = snapshot->second.files;
      begin(sandbox, *request);
      sandboxes_[request->sandbox_id()] = sandbox;
      started(sandbox, !image, request->restore(), *reply);
      return Status::OK;
    });
  }

  Status DestroySandbox(ServerContext* context, const pb::DestroySandboxRequest* request,
                        pb::DestroySandboxReply* reply) override {
    return run("DestroySandbox", *context, [&]() -> Status {
      reply->set_existed(sandboxes_.erase(request->sandbox_id()) == 1);
      return Status::OK;
    });
  }

  Status PauseSandbox(ServerContext* context, const pb::PauseSandboxRequest* request,
                      pb::SnapshotTaken* reply) override {
    return run("PauseSandbox", *context, [&]() -> Status {
      const auto found = sandboxes_.find(request->sandbox_id());
      if (found == sandboxes_.end()) return failed(grpc::NOT_FOUND, "no sandbox " + request->sandbox_id());
      take(found->second, request->snapshot_id(), *reply);
      sandboxes_.erase(found);
      return Status::OK;
    });
  }

  Status ResumeSandbox(ServerContext* context, const pb::ResumeSandboxRequest* request,
                       pb::SandboxStarted* reply) override {
    return run("ResumeSandbox", *context, [&]() -> Status {
      const auto snapshot = snapshots_.find(request->snapshot_id());
      if (snapshot == snapshots_.end()) return failed(grpc::NOT_FOUND, "no snapshot " + request->snapshot_id());
      if (sandboxes_.contains(request->sandbox_id())) return failed(grpc::ALREADY_EXISTS, "the id is in use");
      ScriptedSandbox sandbox;
      sandbox.vcpus = snapshot->second.vcpus;
      sandbox.memory_mb = snapshot->second.memory_mb;
      sandbox.disk_bytes = snapshot->second.disk_bytes;
      sandbox.files = snapshot->second.files;
      sandbox.load_mib_per_s = request->load_mib_per_s();
      begin(sandbox, *request);
      sandboxes_[request->sandbox_id()] = sandbox;
      started(sandbox, true, request->restore(), *reply);
      return Status::OK;
    });
  }

  Status GetPagerMetrics(ServerContext* context, const pb::GetPagerMetricsRequest*, pb::PagerMetrics* reply) override {
    return run("GetPagerMetrics", *context, [&]() -> Status {
      *reply = scripted_metrics("layers");
      reply->mutable_spares()->set_ready(1);
      reply->mutable_spares()->set_used(7);
      return Status::OK;
    });
  }

  Status GetRestoreTrace(ServerContext* context, const pb::GetRestoreTraceRequest* request,
                         pb::RestoreTrace* reply) override {
    return run("GetRestoreTrace", *context, [&]() -> Status {
      if (!sandboxes_.contains(request->sandbox_id())) return failed(grpc::NOT_FOUND, "no such sandbox");
      reply->set_method("uffd");
      reply->set_reason("it was asked for");
      reply->set_total_pages(65'536);
      *reply->mutable_metrics() = scripted_metrics(kImageId);
      pb::ArrivalEvent* event = reply->add_events();
      event->set_when_us(1500);
      event->set_offset(1 << 20);
      event->set_length(4096);
      event->set_how("fault");
      event->set_zeros(true);
      reply->set_left_out(2);
      reply->set_load("ended");
      reply->set_load_error("damaged");
      reply->set_spare(true);
      return Status::OK;
    });
  }

  Status ListSandboxes(ServerContext* context, const pb::ListSandboxesRequest*,
                       pb::ListSandboxesReply* reply) override {
    return run("ListSandboxes", *context, [&]() -> Status {
      for (const auto& [id, sandbox] : sandboxes_) {
        pb::SandboxInfo* info = reply->add_sandboxes();
        info->set_sandbox_id(id);
        info->set_state(sandbox.state);
        info->set_reason(sandbox.reason);
        info->set_vcpus(sandbox.vcpus);
        info->set_memory_mb(sandbox.memory_mb);
        info->set_disk_bytes(sandbox.disk_bytes);
        info->set_deadline_unix_ms(sandbox.deadline_ms);
      }
      return Status::OK;
    });
  }

  Status PingSandbox(ServerContext* context, const pb::PingSandboxRequest* request,
                     pb::PingSandboxReply* reply) override {
    return run("PingSandbox", *context, [&]() -> Status {
      const auto found = sandboxes_.find(request->sandbox_id());
      if (found == sandboxes_.end()) return failed(grpc::NOT_FOUND, "no sandbox " + request->sandbox_id());
      if (request->timeout_sec() > 0)
        found->second.deadline_ms = unix_time_ms() + request->timeout_sec() * int64_t{1000};
      reply->set_round_trip_us(321);
      reply->set_deadline_unix_ms(found->second.deadline_ms);
      return Status::OK;
    });
  }

  // "echo" prints its arguments and standard input, "flood" prints without end, "wait" prints nothing without end,
  // "raw" prints what is not UTF-8; the end is an exit status of as many as there are arguments.
  Status Exec(ServerContext* context, const pb::ExecRequest* request,
              grpc::ServerWriter<pb::ExecEvent>* writer) override {
    Status allowed = run("Exec", *context, [&]() -> Status {
      return sandboxes_.contains(request->sandbox_id()) ? Status::OK : failed(grpc::NOT_FOUND, "no such sandbox");
    });
    if (!allowed.ok()) return allowed;
    pb::ExecEvent event;
    event.set_started_pid(7);
    writer->Write(event);
    if (request->command() == "wait") wait_for_cancel(*context);
    if (request->command() == "flood") {
      event.set_stdout(std::string(size_t{256} * 1024, 'x'));
      while (writer->Write(event)) {
      }
    }
    std::string text = request->stdin();
    for (const std::string& word : request->args()) text += word + "\n";
    if (request->command() == "raw") text = "\xff\xfe";
    event.set_stdout(text);
    writer->Write(event);
    event.set_stderr("to standard error");
    writer->Write(event);
    event.mutable_exited()->set_exit_code(request->args_size());
    event.mutable_exited()->set_status("exited");
    writer->Write(event);
    return context->IsCancelled() ? Status::CANCELLED : Status::OK;
  }

  Status ReadFile(ServerContext* context, const pb::ReadFileRequest* request,
                  grpc::ServerWriter<pb::FileChunk>* writer) override {
    std::optional<std::string> content;
    Status allowed = run("ReadFile", *context, [&]() -> Status {
      const auto sandbox = sandboxes_.find(request->sandbox_id());
      if (sandbox == sandboxes_.end()) return failed(grpc::NOT_FOUND, "no such sandbox");
      const auto file = sandbox->second.files.find(request->path());
      if (file == sandbox->second.files.end()) return failed(grpc::NOT_FOUND, "no file " + request->path());
      content = file->second;
      return Status::OK;
    });
    if (!allowed.ok()) return allowed;
    for (size_t offset = 0; offset < content->size(); offset += kChunk) {
      pb::FileChunk chunk;
      chunk.set_data(content->substr(offset, kChunk));
      if (offset == 0) chunk.set_size(content->size());
      if (!writer->Write(chunk)) return Status::CANCELLED;
      if (request->path() == "/breaks") return failed(grpc::DATA_LOSS, "the file broke in the middle");
    }
    return Status::OK;
  }

  Status WriteFile(ServerContext* context, grpc::ServerReader<pb::WriteFileRequest>* reader,
                   pb::WriteFileReply* reply) override {
    pb::WriteFileRequest part;
    if (!reader->Read(&part) || !part.has_open()) return failed(grpc::INVALID_ARGUMENT, "no open");
    const pb::WriteFileRequest::Open open = part.open();
    if (open.path() == "/full") return failed(grpc::RESOURCE_EXHAUSTED, "no space left on device");
    std::string content;
    while (reader->Read(&part)) content += part.data();
    if (context->IsCancelled()) return Status::CANCELLED;
    return run("WriteFile", *context, [&]() -> Status {
      const auto sandbox = sandboxes_.find(open.sandbox_id());
      if (sandbox == sandboxes_.end()) return failed(grpc::NOT_FOUND, "no such sandbox");
      reply->set_bytes(content.size());
      sandbox->second.files[open.path()] = std::move(content);
      return Status::OK;
    });
  }

  Status ListDir(ServerContext* context, const pb::PathRequest* request, pb::ListDirReply* reply) override {
    return run("ListDir", *context, [&]() -> Status {
      const auto sandbox = sandboxes_.find(request->sandbox_id());
      if (sandbox == sandboxes_.end()) return failed(grpc::NOT_FOUND, "no such sandbox");
      for (const auto& [path, content] : sandbox->second.files) {
        if (!path.starts_with(request->path())) continue;
        pb::DirEntry* entry = reply->add_entries();
        entry->set_name(path.substr(path.rfind('/') + 1));
        entry->set_path(path);
        entry->set_type("file");
        entry->set_size(content.size());
        entry->set_mode(0644);
        entry->set_owner("root");
        entry->set_group("root");
        entry->set_modified("2026-01-01T00:00:00Z");
      }
      return Status::OK;
    });
  }

  Status MakeDir(ServerContext* context, const pb::PathRequest* request, pb::PathReply*) override {
    return run("MakeDir", *context, [&]() -> Status {
      return sandboxes_.contains(request->sandbox_id()) ? Status::OK : failed(grpc::NOT_FOUND, "no such sandbox");
    });
  }

  Status RemovePath(ServerContext* context, const pb::PathRequest* request, pb::PathReply*) override {
    return run("RemovePath", *context, [&]() -> Status {
      const auto sandbox = sandboxes_.find(request->sandbox_id());
      if (sandbox == sandboxes_.end() || sandbox->second.files.erase(request->path()) == 0) {
        return failed(grpc::NOT_FOUND, "no file " + request->path());
      }
      return Status::OK;
    });
  }

  Status CreateSnapshot(ServerContext* context, const pb::CreateSnapshotRequest* request,
                        pb::SnapshotTaken* reply) override {
    return run("CreateSnapshot", *context, [&]() -> Status {
      const auto found = sandboxes_.find(request->sandbox_id());
      if (found == sandboxes_.end()) return failed(grpc::NOT_FOUND, "no sandbox " + request->sandbox_id());
      take(found->second, request->snapshot_id(), *reply);
      reply->mutable_live()->set_rounds(found->second.not_copied_ahead.empty() ? 3 : 0);
      reply->mutable_live()->set_last_round_bytes(4096);
      reply->mutable_live()->set_reason(found->second.not_copied_ahead);
      return Status::OK;
    });
  }

  Status DeleteSnapshot(ServerContext* context, const pb::DeleteSnapshotRequest* request,
                        pb::DeleteSnapshotReply*) override {
    return run("DeleteSnapshot", *context, [&]() -> Status {
      return snapshots_.erase(request->snapshot_id()) == 1 ? Status::OK : failed(grpc::NOT_FOUND, "no such snapshot");
    });
  }

  Status ListSnapshots(ServerContext* context, const pb::ListSnapshotsRequest*,
                       pb::ListSnapshotsReply* reply) override {
    return run("ListSnapshots", *context, [&]() -> Status {
      for (const auto& [id, snapshot] : snapshots_) {
        pb::SnapshotInfo* info = reply->add_snapshots();
        info->set_snapshot_id(id);
        info->set_kind(snapshot.kind);
      }
      return Status::OK;
    });
  }

  Status CompactStore(ServerContext* context, const pb::CompactStoreRequest* request,
                      pb::CompactStoreReply* reply) override {
    return run("CompactStore", *context, [&]() -> Status {
      for (const auto& [id, snapshot] : snapshots_) {
        if (request->snapshot_id() != id) continue;
        pb::CompactedSnapshot* compacted = reply->add_snapshots();
        compacted->set_snapshot_id(id);
        compacted->set_spaces(1);
        compacted->set_layers_before(3);
        compacted->set_live_bytes(4096);
        compacted->set_read_bytes(8192);
        compacted->set_stored_before(8192);
        compacted->set_stored_after(request->packed() ? 1024 : 4096);
      }
      return Status::OK;
    });
  }

  Status ExportSnapshot(ServerContext* context, const pb::ExportSnapshotRequest* request,
                        grpc::ServerWriter<pb::ArchiveChunk>* writer) override {
    return run("ExportSnapshot", *context, [&]() -> Status {
      if (!snapshots_.contains(request->snapshot_id())) return failed(grpc::NOT_FOUND, "no such snapshot");
      const std::string archive = "archive of " + request->snapshot_id();
      pb::ArchiveChunk chunk;
      chunk.set_data(archive.substr(request->from()));
      writer->Write(chunk);
      chunk.clear_data();
      chunk.set_total(archive.size());
      writer->Write(chunk);
      return Status::OK;
    });
  }

  Status ImportSnapshot(ServerContext* context, grpc::ServerReader<pb::ImportSnapshotRequest>* reader,
                        pb::ImportSnapshotReply* reply) override {
    pb::ImportSnapshotRequest message;
    reader->Read(&message);
    const pb::ImportSnapshotRequest::Open open = message.open();
    std::string bytes;
    const bool fits = with([&] {
      const auto kept = kept_imports_.find(open.stream());
      if (open.kept_bytes() == 0) return true;
      if (kept != kept_imports_.end()) bytes = kept->second;
      return bytes.size() == open.kept_bytes() && open.kept_checksum() == kScriptedChecksum;
    });
    if (!fits) return failed(grpc::FAILED_PRECONDITION, "not what is kept");
    while (reader->Read(&message)) {
      bytes += message.data();
      const std::lock_guard lock(mutex_);
      if (!open.stream().empty()) kept_imports_[open.stream()] = bytes;
    }
    return run("ImportSnapshot", *context, [&]() -> Status {
      if (context->IsCancelled()) return Status::CANCELLED;
      ScriptedSnapshot& snapshot = snapshots_[open.snapshot_id()];
      snapshot.files["/archive"] = bytes;
      reply->set_name("as-exported");
      reply->set_vcpus(snapshot.vcpus);
      reply->set_memory_mb(snapshot.memory_mb);
      reply->set_disk_bytes(snapshot.disk_bytes);
      reply->set_stored_bytes(8192);
      return Status::OK;
    });
  }

  Status DescribeArchive(ServerContext* context, const pb::DescribeArchiveRequest* request,
                         pb::ArchiveDescription* reply) override {
    return run("DescribeArchive", *context, [&]() -> Status {
      if (!request->head().starts_with("an archive")) return failed(grpc::INVALID_ARGUMENT, "this is no archive");
      reply->set_name("as-exported");
      return Status::OK;
    });
  }

  Status GetKeptImport(ServerContext* context, const pb::KeptImportRequest* request, pb::KeptImport* reply) override {
    return run("GetKeptImport", *context, [&]() -> Status {
      const auto kept = kept_imports_.find(request->stream());
      if (kept == kept_imports_.end()) return failed(grpc::NOT_FOUND, "nothing is kept");
      reply->set_bytes(kept->second.size());
      reply->set_checksum(kScriptedChecksum);
      reply->set_name("as-exported");
      return Status::OK;
    });
  }

  Status ForgetKeptImport(ServerContext* context, const pb::KeptImportRequest* request,
                          pb::ForgetKeptImportReply*) override {
    return run("ForgetKeptImport", *context, [&]() -> Status {
      kept_imports_.erase(request->stream());
      return Status::OK;
    });
  }

  Status ListImages(ServerContext* context, const pb::ListImagesRequest*, pb::ListImagesReply* reply) override {
    return run("ListImages", *context, [&]() -> Status {
      for (const auto& [name, id] : images_) {
        pb::ImageInfo* image = reply->add_images();
        image->set_name(name);
        image->set_snapshot_id(id);
        image->set_kernel("vmlinux");
        image->set_disk_bytes(uint64_t{kImageDiskMb} << 20);
        image->set_size_bytes(12345);
      }
      return Status::OK;
    });
  }

  Status VerifySnapshots(ServerContext* context, const pb::VerifySnapshotsRequest* request,
                         grpc::ServerWriter<pb::VerifyEvent>* writer) override {
    return run("VerifySnapshots", *context, [&]() -> Status {
      for (const std::string& id : request->snapshot_ids()) {
        if (!snapshots_.contains(id)) return failed(grpc::NOT_FOUND, "there is no snapshot " + id);
      }
      pb::VerifyEvent event;
      event.mutable_progress()->set_total_bytes(65'536);
      writer->Write(event);
      uint64_t damages = 0;
      for (const auto& [id, snapshot] : snapshots_) {
        const auto& asked = request->snapshot_ids();
        if (!asked.empty() && std::find(asked.begin(), asked.end(), id) == asked.end()) continue;
        if (!snapshot.damaged) continue;
        ++damages;
        event.Clear();
        event.mutable_damage()->set_file("/store/layers/x.raw");
        event.mutable_damage()->set_frame(3);
        event.mutable_damage()->set_message("frame 3 is damaged");
        event.mutable_damage()->add_snapshot_ids(id);
        writer->Write(event);
      }
      if (verify_error_) return status_of(*verify_error_, *context);
      event.mutable_done()->set_bytes(65'536);
      event.mutable_done()->set_damages(damages);
      writer->Write(event);
      return Status::OK;
    });
  }

  Status CollectStore(ServerContext* context, const pb::CollectStoreRequest* request,
                      pb::CollectStoreReply* reply) override {
    return run("CollectStore", *context, [&]() -> Status {
      if (request->grace_sec() > 0) {
        reply->set_kept_young(1);
        return Status::OK;
      }
      reply->add_removed()->set_file("layers/x.raw");
      reply->mutable_removed(0)->set_bytes(4096);
      reply->set_count(1);
      reply->set_bytes(4096);
      return Status::OK;
    });
  }

  Status GetScrubState(ServerContext* context, const pb::GetScrubStateRequest*, pb::ScrubState* reply) override {
    return run("GetScrubState", *context, [&]() -> Status {
      reply->set_started_unix_ms(1'700'000'000'000);
      reply->set_checked_bytes(8192);
      reply->set_under_way(true);
      for (const auto& [id, snapshot] : snapshots_) {
        if (snapshot.damaged) reply->add_damaged("/store/snapshots/" + id + "/state");
      }
      return Status::OK;
    });
  }

  Status GetStoreUsage(ServerContext* context, const pb::GetStoreUsageRequest*, pb::StoreUsage* reply) override {
    return run("GetStoreUsage", *context, [&]() -> Status {
      for (const auto& [id, snapshot] : snapshots_) {
        pb::StoreHolder* holder = reply->add_holders();
        holder->set_kind(snapshot.kind);
        holder->set_id(id);
        holder->set_created_unix_ms(1'700'000'000'000);
        holder->set_own_bytes(4096);
        if (snapshot.damaged) holder->set_damage("its manifest is damaged");
      }
      for (const auto& [id, sandbox] : sandboxes_) {
        pb::StoreHolder* holder = reply->add_holders();
        holder->set_kind("sandbox");
        holder->set_id(id);
      }
      reply->set_total_bytes(8192);
      if (sandboxes_.empty()) reply->set_reclaimable_bytes(0);
      return Status::OK;
    });
  }

  Status InspectSnapshot(ServerContext* context, const pb::InspectSnapshotRequest* request,
                         pb::SnapshotDetail* reply) override {
    return run("InspectSnapshot", *context, [&]() -> Status {
      const auto found = snapshots_.find(request->snapshot_id());
      if (found == snapshots_.end()) return failed(grpc::NOT_FOUND, "there is no such snapshot");
      reply->mutable_info()->set_snapshot_id(found->first);
      reply->mutable_info()->set_kind(found->second.kind);
      reply->mutable_info()->set_created_unix_ms(1'700'000'000'000);
      reply->add_parents()->set_snapshot_id(kGoneId);
      pb::SpaceDetail* space = reply->add_spaces();
      space->set_name("memory");
      space->set_size(8192);
      space->set_fragmentation(0.5);
      space->add_layers()->set_layer_id("x");
      space->mutable_layers(0)->set_form("zstd");
      for (uint32_t i = 0; i < std::min(request->cells(), 2U); ++i) space->add_cells(i);
      return Status::OK;
    });
  }

  Status DiffSnapshots(ServerContext* context, const pb::DiffSnapshotsRequest* request,
                       pb::SnapshotDiff* reply) override {
    return run("DiffSnapshots", *context, [&]() -> Status {
      if (!snapshots_.contains(request->from_id()) || !snapshots_.contains(request->to_id())) {
        return failed(grpc::NOT_FOUND, "there is no such snapshot");
      }
      pb::SpaceDiff* space = reply->add_spaces();
      space->set_name("disk");
      space->set_runs(1);
      space->add_changed()->set_length(4096);
      pb::FileChanges* files = space->mutable_files();
      if (request->from_id() == request->to_id()) {
        files->set_note("no file system");
        return Status::OK;
      }
      files->set_renamed(1);
      pb::FileChange* change = files->add_changes();
      change->set_change("renamed");
      change->set_type_before("file");
      change->set_type_now("file");
      change->set_path("/new\n\xff\\");
      change->set_old_path("/old");
      change->set_mode(true);
      return Status::OK;
    });
  }

  std::optional<Error> verify_error_;
  std::map<std::string, ScriptedSandbox> sandboxes_;
  std::map<std::string, ScriptedSnapshot> snapshots_;
  std::map<std::string, std::string> images_;
  std::map<std::string, std::string> kept_imports_;  // by stream: bytes

 private:
  static constexpr size_t kChunk = size_t{64} * 1024;
  struct Failure {
    Error error;
    int times = 0;
  };
  struct Hold {
    Point point = Point::kBefore;
    int waiting = 0;
  };

  // Every call goes through here: counted, held, failed, then done under the lock.
  template <typename Work>
  Status run(const std::string& call, ServerContext& context, Work work) {
    std::unique_lock lock(mutex_);
    ++calls_[call];
    wait(lock, call, Point::kBefore);
    if (stopping_) return failed(grpc::UNAVAILABLE, "the agent was killed");
    if (const auto found = failures_.find(call); found != failures_.end() && found->second.times != 0) {
      --found->second.times;
      return status_of(found->second.error, context);
    }
    const Status status = work();
    if (status.ok()) wait(lock, call, Point::kAfter);
    return stopping_ ? failed(grpc::UNAVAILABLE, "the agent was killed") : status;
  }

  void wait(std::unique_lock<std::mutex>& lock, const std::string& call, Point point) {
    const auto held = [&] {
      const auto found = holds_.find(call);
      return found != holds_.end() && found->second.point == point;
    };
    if (!held()) return;
    ++holds_[call].waiting;
    changed_.notify_all();
    changed_.wait(lock, [&] { return !held() || stopping_; });
  }

  void wait_for_cancel(ServerContext& context) {
    while (!context.IsCancelled()) {
      std::unique_lock lock(mutex_);
      changed_.wait_for(lock, std::chrono::milliseconds(10), [&] { return stopping_; });
      if (stopping_) return;
    }
  }

  template <typename Request>
  static void begin(ScriptedSandbox& sandbox, const Request& request) {
    sandbox.base_snapshot_id = request.snapshot_id();
    sandbox.hostname = request.hostname();
    sandbox.access_token = request.access_token();
    sandbox.env = {request.env().begin(), request.env().end()};
    if (request.timeout_sec() > 0) sandbox.deadline_ms = unix_time_ms() + request.timeout_sec() * int64_t{1000};
  }

  static pb::PagerMetrics scripted_metrics(const std::string& layer) {
    pb::PagerMetrics metrics;
    pb::FaultCount* faults = metrics.add_faults();
    faults->set_kind("read");
    faults->set_cause("absent");
    faults->set_outcome("copied");
    faults->set_count(3);
    for (const uint64_t count : {0, 0, 2, 0, 1}) metrics.add_service_buckets(count);
    metrics.set_service_ns(30'000);
    pb::PagesCame* pages = metrics.add_pages();
    pages->set_how("around");
    pages->set_pages(45);
    pb::SourceBytes* zeros = metrics.add_sources();
    zeros->set_layer("zeros");
    zeros->set_bytes(4096);
    pb::SourceBytes* source = metrics.add_sources();
    source->set_layer(layer);
    source->set_bytes(8192);
    metrics.set_prefetch_left_bytes(12'288);
    metrics.set_load_left_bytes(4096);
    return metrics;
  }

  static void started(const ScriptedSandbox& sandbox, bool restored, const std::string& way,
                      pb::SandboxStarted& reply) {
    reply.set_vcpus(sandbox.vcpus);
    reply.set_memory_mb(sandbox.memory_mb);
    reply.set_disk_bytes(sandbox.disk_bytes);
    reply.set_vmm("scripted");
    reply.set_accelerator("none");
    reply.set_address("10.0.0.2");
    reply.mutable_times()->set_vmm_ready_us(1500);
    reply.mutable_times()->set_daemon_answered_us(2500);
    reply.mutable_times()->set_total_us(3500);
    if (!restored) return;
    reply.mutable_restore()->set_method(way.empty() ? "uffd" : way);
    reply.mutable_restore()->set_total_pages(65536);
    reply.mutable_restore()->set_pages_by_fault(100);
    reply.mutable_restore()->set_spare(true);
    reply.mutable_restore()->set_write_faults(40);
    reply.mutable_restore()->set_fault_p50_us(8);
  }

  void take(const ScriptedSandbox& sandbox, const std::string& id, pb::SnapshotTaken& reply) {
    snapshots_[id] = {"snapshot", sandbox.vcpus, sandbox.memory_mb, sandbox.disk_bytes, sandbox.files};
    reply.set_snapshot_id(id);
    reply.set_stored_bytes(8192);
    fill(*reply.mutable_memory(), 4096);
    fill(*reply.mutable_disk(), 4096);
    reply.set_stopped_us(1000);
    reply.set_total_us(2000);
    reply.set_vcpus(sandbox.vcpus);
    reply.set_memory_mb(sandbox.memory_mb);
    reply.set_disk_bytes(sandbox.disk_bytes);
  }

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, int> calls_;
  std::map<std::string, Failure> failures_;
  std::map<std::string, Hold> holds_;
  bool stopping_ = false;
};

struct ScriptedAgent::Listener {
  std::unique_ptr<grpc::Server> server;
};

ScriptedAgent::ScriptedAgent(const Path& socket)
    : socket_(socket), service_(std::make_unique<Service>()), listener_(std::make_unique<Listener>()) {
  set_images({{"base", kImageId}});
  start();
}

ScriptedAgent::~ScriptedAgent() { stop(); }

void ScriptedAgent::start() {
  service_->resume_service();
  std::error_code ignored;
  std::filesystem::remove(socket_, ignored);
  grpc::ServerBuilder builder;
  builder.AddListeningPort("unix:" + socket_.string(), grpc::InsecureServerCredentials());
  builder.RegisterService(service_.get());
  // Its threads look for the end of the server this often when the wake-up for it misses them; ten seconds is the
  // default.
  builder.SetSyncServerOption(grpc::ServerBuilder::SyncServerOption::CQ_TIMEOUT_MSEC, 100);
  listener_->server = builder.BuildAndStart();
}

void ScriptedAgent::stop() {
  if (!listener_->server) return;
  service_->release_all();
  listener_->server->Shutdown(std::chrono::system_clock::now());
  listener_->server->Wait();
  listener_->server.reset();
}

void ScriptedAgent::fail_calls(const std::string& call, Error error, int times) {
  service_->fail_calls(call, std::move(error), times);
}
void ScriptedAgent::hold(const std::string& call, Point point) { service_->hold(call, point); }
void ScriptedAgent::release(const std::string& call) { service_->release(call); }
bool ScriptedAgent::wait_held(const std::string& call) { return service_->wait_held(call); }
int ScriptedAgent::calls(const std::string& call) const { return service_->calls(call); }

void ScriptedAgent::edit(const std::function<void(std::map<std::string, ScriptedSandbox>&,
                                                  std::map<std::string, ScriptedSnapshot>&)>& change) {
  service_->with([&] {
    change(service_->sandboxes_, service_->snapshots_);
    return 0;
  });
}

bool ScriptedAgent::has_sandbox(const std::string& id) const {
  return service_->with([&] { return service_->sandboxes_.contains(id); });
}

bool ScriptedAgent::has_snapshot(const std::string& id) const {
  return service_->with([&] { return service_->snapshots_.contains(id); });
}

std::string ScriptedAgent::kept_import(const std::string& stream) const {
  return service_->with([&] {
    const auto found = service_->kept_imports_.find(stream);
    return found == service_->kept_imports_.end() ? "" : found->second;
  });
}

std::set<std::string> ScriptedAgent::snapshots() const {
  return service_->with([&] {
    std::set<std::string> ids;
    for (const auto& [id, snapshot] : service_->snapshots_) {
      if (snapshot.kind != "image") ids.insert(id);
    }
    return ids;
  });
}

size_t ScriptedAgent::sandbox_count() const {
  return service_->with([&] { return service_->sandboxes_.size(); });
}

void ScriptedAgent::fail_verifications_at_the_end(Error error) {
  service_->with([&] {
    service_->verify_error_ = std::move(error);
    return 0;
  });
}

void ScriptedAgent::set_images(std::map<std::string, std::string> images) {
  service_->with([&] {
    service_->images_ = std::move(images);
    for (const auto& [name, id] : service_->images_) service_->snapshots_[id].kind = "image";
    return 0;
  });
}

}  // namespace stasis::server::testing
