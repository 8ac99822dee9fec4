#include "agent/service.h"

#include "agent/cancel_watch.h"
#include "base/clock.h"
#include "base/process_memory.h"

namespace stasis::agent {
namespace {

using snapshot::SnapshotId;

constexpr uint64_t kMib = uint64_t{1} << 20;
constexpr Milliseconds kPingDeadline{10'000};

void fill(v1::RestoreStats* out, const supervisor::StateReply& info) {
  out->set_total_pages(info.total_pages);
  out->set_pages_by_fault(info.pages_by_fault);
  out->set_pages_prefetched(info.pages_around + info.pages_prefetched);
  out->set_pages_zero(info.pages_zero);
  out->set_faults(info.faults);
  out->set_method(info.restore_method);
  out->set_reason(info.restore_reason);
  out->set_pages_around(info.pages_around);
  out->set_write_faults(info.write_faults);
  out->set_fault_p50_us(info.fault_p50_us);
  out->set_fault_p99_us(info.fault_p99_us);
  out->set_mapped_bytes(info.mapped_bytes);
  out->set_resident_pages(info.resident_pages);
  out->set_spare(info.spare);
}

void fill(v1::SandboxStarted* out, const Started& started) {
  const supervisor::StateReply& info = started.info;
  out->set_vcpus(info.shape.vcpus);
  out->set_memory_mb(info.shape.memory_mib);
  out->set_disk_bytes(info.disk_bytes);
  out->set_vmm(info.vmm);
  out->set_accelerator(info.accelerator);
  out->set_address(info.guest_address);
  if (!info.restore_method.empty()) fill(out->mutable_restore(), info);
  out->mutable_times()->set_vmm_ready_us(started.vmm_ready_us);
  out->mutable_times()->set_daemon_answered_us(started.daemon_answered_us);
  out->mutable_times()->set_total_us(started.total_us);
}

void fill(v1::GenerationStats* out, const snapshot::GenerationStats& stats) {
  out->set_generation(stats.generation);
  out->set_compared_bytes(stats.compared_bytes);
  out->set_stored_bytes(stats.stored_bytes);
  out->set_zeroed_bytes(stats.zeroed_bytes);
}

void fill(v1::LiveStats* out, const supervisor::LiveStats& stats) {
  out->set_rounds(stats.rounds);
  out->set_last_round_bytes(stats.last_round_bytes);
  out->set_reason(stats.reason);
}

void fill(v1::SnapshotTaken* out, const Taken& taken) {
  out->set_snapshot_id(taken.reply.id.text());
  out->set_stored_bytes(taken.reply.memory.stored_bytes + taken.reply.disk.stored_bytes);
  fill(out->mutable_memory(), taken.reply.memory);
  fill(out->mutable_disk(), taken.reply.disk);
  out->set_stopped_us(taken.reply.stopped_us);
  out->set_total_us(taken.reply.total_us);
  out->set_vcpus(taken.manifest.machine.vcpus);
  out->set_memory_mb(taken.manifest.machine.memory_mib);
  out->set_disk_bytes(taken.disk_bytes);
  if (taken.reply.live) fill(out->mutable_live(), *taken.reply.live);
}

template <typename Request>
SandboxRecord record_of(const Request& request) {
  SandboxRecord record;
  record.hostname = request.hostname();
  record.access_token = request.access_token();
  record.env = {request.env().begin(), request.env().end()};
  return record;
}

}  // namespace

grpc::Status answer(grpc::ServerContext* context, const Error& error) {
  context->AddTrailingMetadata("stasis-error", "1");
  if (!error.remedy.empty()) context->AddTrailingMetadata("stasis-remedy", error.remedy);
  return {static_cast<grpc::StatusCode>(static_cast<int>(error.code)), error.message};
}

Result<SnapshotId> snapshot_id(const std::string& text) {
  STASIS_ASSIGN(const Uuid uuid, Uuid::parse(text));
  return SnapshotId{uuid};
}

grpc::Status Service::CreateSandbox(Context* context, const v1::CreateSandboxRequest* request,
                                    v1::SandboxStarted* reply) {
  const auto base = snapshot_id(request->snapshot_id());
  if (!base) return answer(context, base.error());
  StartSpec spec;
  spec.id = request->sandbox_id();
  spec.base = *base;
  spec.shape = {request->vcpus(), request->memory_mb()};
  spec.cold = request->cold();
  spec.restore = request->restore();
  spec.load_mib_per_s = request->load_mib_per_s();
  spec.disk_bytes = request->disk_mb() * kMib;
  spec.timeout_sec = request->timeout_sec();
  spec.record = record_of(*request);
  const auto started = host_.start(spec);
  if (!started) return answer(context, started.error());
  fill(reply, *started);
  return grpc::Status::OK;
}

grpc::Status Service::ResumeSandbox(Context* context, const v1::ResumeSandboxRequest* request,
                                    v1::SandboxStarted* reply) {
  const auto base = snapshot_id(request->snapshot_id());
  if (!base) return answer(context, base.error());
  StartSpec spec;
  spec.id = request->sandbox_id();
  spec.base = *base;
  spec.timeout_sec = request->timeout_sec();
  spec.record = record_of(*request);
  spec.same_machine = true;
  spec.restore = request->restore();
  spec.load_mib_per_s = request->load_mib_per_s();
  const auto started = host_.start(spec);
  if (!started) return answer(context, started.error());
  fill(reply, *started);
  return grpc::Status::OK;
}

grpc::Status Service::DestroySandbox(Context* context, const v1::DestroySandboxRequest* request,
                                     v1::DestroySandboxReply* reply) {
  const auto existed = host_.destroy(request->sandbox_id(), request->reason());
  if (!existed) return answer(context, existed.error());
  reply->set_existed(*existed);
  return grpc::Status::OK;
}

grpc::Status Service::PauseSandbox(Context* context, const v1::PauseSandboxRequest* request, v1::SnapshotTaken* reply) {
  const auto id = snapshot_id(request->snapshot_id());
  if (!id) return answer(context, id.error());
  const auto taken = host_.pause(request->sandbox_id(), *id);
  if (!taken) return answer(context, taken.error());
  fill(reply, *taken);
  return grpc::Status::OK;
}

grpc::Status Service::CreateSnapshot(Context* context, const v1::CreateSnapshotRequest* request,
                                     v1::SnapshotTaken* reply) {
  const auto id = snapshot_id(request->snapshot_id());
  if (!id) return answer(context, id.error());
  const auto taken = host_.snapshot(request->sandbox_id(), *id);
  if (!taken) return answer(context, taken.error());
  fill(reply, *taken);
  return grpc::Status::OK;
}

grpc::Status Service::DeleteSnapshot(Context* context, const v1::DeleteSnapshotRequest* request,
                                     v1::DeleteSnapshotReply* reply) {
  const auto id = snapshot_id(request->snapshot_id());
  if (!id) return answer(context, id.error());
  const auto freed = host_.delete_snapshot(*id);
  if (!freed) return answer(context, freed.error());
  reply->set_freed_bytes(*freed);
  return grpc::Status::OK;
}

grpc::Status Service::ListSandboxes(Context*, const v1::ListSandboxesRequest*, v1::ListSandboxesReply* reply) {
  for (const SandboxView& view : host_.list()) {
    v1::SandboxInfo* info = reply->add_sandboxes();
    info->set_sandbox_id(view.id);
    info->set_state(std::string(state_name(view.state)));
    info->set_reason(view.reason);
    info->set_base_snapshot_id(view.info.base.text());
    info->set_vcpus(view.info.shape.vcpus);
    info->set_memory_mb(view.info.shape.memory_mib);
    info->set_disk_bytes(view.info.disk_bytes);
    info->set_deadline_unix_ms(view.deadline_unix_ms);
    info->set_adopted(view.adopted);
  }
  return grpc::Status::OK;
}

grpc::Status Service::PingSandbox(Context* context, const v1::PingSandboxRequest* request,
                                  v1::PingSandboxReply* reply) {
  const auto guest = host_.guest(request->sandbox_id());
  if (!guest) return answer(context, guest.error());
  const auto begun = std::chrono::steady_clock::now();
  if (const auto alive = guest->health(Deadline::after(kPingDeadline)); !alive) return answer(context, alive.error());
  const auto elapsed = std::chrono::steady_clock::now() - begun;
  reply->set_round_trip_us(
      static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(elapsed).count()));
  const auto deadline = request->timeout_sec() > 0 ? host_.extend(request->sandbox_id(), request->timeout_sec())
                                                   : host_.deadline(request->sandbox_id());
  if (!deadline) return answer(context, deadline.error());
  reply->set_deadline_unix_ms(*deadline);
  return grpc::Status::OK;
}

grpc::Status Service::Exec(Context* context, const v1::ExecRequest* request,
                           grpc::ServerWriter<v1::ExecEvent>* writer) {
  const StreamSlot slot(*this);
  if (!slot.taken()) return answer(context, StreamSlot::none_left());
  const auto guest = host_.guest(request->sandbox_id());
  if (!guest) return answer(context, guest.error());
  Command command;
  command.program = request->command();
  command.args = {request->args().begin(), request->args().end()};
  command.env = {request->env().begin(), request->env().end()};
  command.cwd = request->cwd();
  command.user = request->user();
  command.stdin_data = request->stdin();
  command.timeout_ms = request->timeout_ms();
  // A client that has gone makes Write fail; the watch below notices it and the command is killed.
  CommandEvents events;
  const auto send = [&](auto set) {
    v1::ExecEvent event;
    set(event);
    writer->Write(event);
  };
  events.started = [&](uint32_t pid) { send([&](v1::ExecEvent& event) { event.set_started_pid(pid); }); };
  events.out = [&](std::string_view bytes) {
    send([&](v1::ExecEvent& event) { event.set_stdout(std::string(bytes)); });
  };
  events.err = [&](std::string_view bytes) {
    send([&](v1::ExecEvent& event) { event.set_stderr(std::string(bytes)); });
  };
  const auto watch = CancelWatch::start(context);
  if (!watch) return answer(context, watch.error());
  const auto end = guest->run(command, events, (*watch)->fd());
  if (!end) return answer(context, end.error());
  send([&](v1::ExecEvent& event) {
    event.mutable_exited()->set_exit_code(end->exit_code);
    event.mutable_exited()->set_status(end->status);
  });
  return grpc::Status::OK;
}

grpc::Status Service::ReadFile(Context* context, const v1::ReadFileRequest* request,
                               grpc::ServerWriter<v1::FileChunk>* writer) {
  const StreamSlot slot(*this);
  if (!slot.taken()) return answer(context, StreamSlot::none_left());
  const auto guest = host_.guest(request->sandbox_id());
  if (!guest) return answer(context, guest.error());
  bool first = true;
  const Status read =
      guest->read_file(request->path(), request->user(), [&](uint64_t size, std::string_view bytes) -> Status {
        if (!first && bytes.empty()) return {};
        v1::FileChunk chunk;
        if (std::exchange(first, false)) chunk.set_size(size);
        chunk.set_data(std::string(bytes));
        if (!writer->Write(chunk)) return fail(Code::kCancelled, "the reader has gone");
        return {};
      });
  return read ? grpc::Status::OK : answer(context, read.error());
}

grpc::Status Service::WriteFile(Context* context, grpc::ServerReader<v1::WriteFileRequest>* reader,
                                v1::WriteFileReply* reply) {
  const StreamSlot slot(*this);
  if (!slot.taken()) return answer(context, StreamSlot::none_left());
  v1::WriteFileRequest message;
  if (!reader->Read(&message) || !message.has_open()) {
    return answer(context, {Code::kInvalidArgument, "the first message of WriteFile must be `open`"});
  }
  const v1::WriteFileRequest::Open open = message.open();
  const auto guest = host_.guest(open.sandbox_id());
  if (!guest) return answer(context, guest.error());
  const auto written = guest->write_file(open.path(), open.user(), [&]() -> Result<std::string> {
    while (reader->Read(&message)) {
      if (!message.data().empty()) return message.data();
    }
    if (context->IsCancelled()) return fail(Code::kCancelled, "the writer has gone");
    return std::string();
  });
  if (!written) return answer(context, written.error());
  reply->set_bytes(*written);
  return grpc::Status::OK;
}

grpc::Status Service::ListDir(Context* context, const v1::PathRequest* request, v1::ListDirReply* reply) {
  const auto guest = host_.guest(request->sandbox_id());
  if (!guest) return answer(context, guest.error());
  const auto entries = guest->list_directory(request->path(), request->user(), request->depth());
  if (!entries) return answer(context, entries.error());
  for (const DirEntry& entry : *entries) {
    v1::DirEntry* out = reply->add_entries();
    out->set_name(entry.name);
    out->set_path(entry.path);
    out->set_type(entry.type);
    out->set_size(entry.size);
    out->set_mode(entry.mode);
    out->set_owner(entry.owner);
    out->set_group(entry.group);
    out->set_modified(entry.modified);
  }
  return grpc::Status::OK;
}

grpc::Status Service::MakeDir(Context* context, const v1::PathRequest* request, v1::PathReply*) {
  const auto guest = host_.guest(request->sandbox_id());
  if (!guest) return answer(context, guest.error());
  const Status made = guest->make_directory(request->path(), request->user());
  return made ? grpc::Status::OK : answer(context, made.error());
}

grpc::Status Service::RemovePath(Context* context, const v1::PathRequest* request, v1::PathReply*) {
  const auto guest = host_.guest(request->sandbox_id());
  if (!guest) return answer(context, guest.error());
  const Status removed = guest->remove(request->path(), request->user());
  return removed ? grpc::Status::OK : answer(context, removed.error());
}

grpc::Status Service::GetSandboxMetrics(Context* context, const v1::GetSandboxMetricsRequest* request,
                                        v1::SandboxMetrics* reply) {
  const auto info = host_.state(request->sandbox_id());
  if (!info) return answer(context, info.error());
  if (!info->restore_method.empty()) fill(reply->mutable_restore(), *info);
  reply->set_vmm_rss_bytes(resident_bytes(info->vmm_pid));
  reply->set_supervisor_rss_bytes(resident_bytes(info->supervisor_pid));
  reply->set_disk_blocks_written(info->disk_blocks_written);
  reply->set_uptime_ms(static_cast<uint64_t>(std::max<int64_t>(0, unix_time_ms() - info->started_unix_ms)));
  reply->set_vmm_pid(info->vmm_pid);
  reply->set_supervisor_pid(info->supervisor_pid);
  return grpc::Status::OK;
}

grpc::Status Service::ListImages(Context* context, const v1::ListImagesRequest*, v1::ListImagesReply* reply) {
  for (const auto& [name, image] : host_.images()) {
    const auto lock = host_.store().lock_shared();
    if (!lock) return answer(context, lock.error());
    const auto manifest = host_.store().load(image.id);
    if (!manifest) return answer(context, manifest.error());
    const auto disk = host_.store().read_map(image.id, *manifest->disk_map);
    if (!disk) return answer(context, disk.error());
    v1::ImageInfo* info = reply->add_images();
    info->set_snapshot_id(image.id.text());
    info->set_name(name);
    info->set_kernel(manifest->kernel);
    info->set_disk_bytes(disk->size());
    info->set_size_bytes(manifest->disk.stored_bytes);
  }
  return grpc::Status::OK;
}

}  // namespace stasis::agent
