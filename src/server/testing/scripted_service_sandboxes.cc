// The calls that begin, end and list sandboxes.
#include "base/clock.h"
#include "server/testing/scripted_service.h"

namespace stasis::server::testing {
namespace {

using grpc::Status;

template <typename Request>
void begin(ScriptedSandbox& sandbox, const Request& request) {
  sandbox.base_snapshot_id = request.snapshot_id();
  sandbox.hostname = request.hostname();
  sandbox.access_token = request.access_token();
  sandbox.env = {request.env().begin(), request.env().end()};
  if (request.timeout_sec() > 0) sandbox.deadline_ms = unix_time_ms() + request.timeout_sec() * int64_t{1000};
}

void started(const ScriptedSandbox& sandbox, bool restored, const std::string& way, pb::SandboxStarted& reply) {
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

}  // namespace

Status ScriptedService::CreateSandbox(Context* context, const pb::CreateSandboxRequest* request,
                                      pb::SandboxStarted* reply) {
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

Status ScriptedService::DestroySandbox(Context* context, const pb::DestroySandboxRequest* request,
                                       pb::DestroySandboxReply* reply) {
  return run("DestroySandbox", *context, [&]() -> Status {
    reply->set_existed(sandboxes_.erase(request->sandbox_id()) == 1);
    return Status::OK;
  });
}

Status ScriptedService::PauseSandbox(Context* context, const pb::PauseSandboxRequest* request,
                                     pb::SnapshotTaken* reply) {
  return run("PauseSandbox", *context, [&]() -> Status {
    const auto found = sandboxes_.find(request->sandbox_id());
    if (found == sandboxes_.end()) return failed(grpc::NOT_FOUND, "no sandbox " + request->sandbox_id());
    take(found->second, request->snapshot_id(), *reply);
    sandboxes_.erase(found);
    return Status::OK;
  });
}

Status ScriptedService::ResumeSandbox(Context* context, const pb::ResumeSandboxRequest* request,
                                      pb::SandboxStarted* reply) {
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

Status ScriptedService::ListSandboxes(Context* context, const pb::ListSandboxesRequest*,
                                      pb::ListSandboxesReply* reply) {
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

Status ScriptedService::PingSandbox(Context* context, const pb::PingSandboxRequest* request,
                                    pb::PingSandboxReply* reply) {
  return run("PingSandbox", *context, [&]() -> Status {
    const auto found = sandboxes_.find(request->sandbox_id());
    if (found == sandboxes_.end()) return failed(grpc::NOT_FOUND, "no sandbox " + request->sandbox_id());
    if (request->timeout_sec() > 0) found->second.deadline_ms = unix_time_ms() + request->timeout_sec() * int64_t{1000};
    reply->set_round_trip_us(321);
    reply->set_deadline_unix_ms(found->second.deadline_ms);
    return Status::OK;
  });
}

}  // namespace stasis::server::testing
