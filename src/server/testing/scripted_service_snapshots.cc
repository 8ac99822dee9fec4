// The calls about snapshots and images: taken, removed, listed, exported and imported.
#include "server/testing/scripted_service.h"

namespace stasis::server::testing {
namespace {

using grpc::Status;

void fill(pb::GenerationStats& stats, uint64_t stored) {
  stats.set_generation(0);
  stats.set_compared_bytes(stored * 2);
  stats.set_stored_bytes(stored);
}

}  // namespace

Status ScriptedService::CreateSnapshot(Context* context, const pb::CreateSnapshotRequest* request,
                                       pb::SnapshotTaken* reply) {
  with([&] { return being_written_.insert(request->snapshot_id()).second; });
  Status status = run("CreateSnapshot", *context, [&]() -> Status {
    const auto found = sandboxes_.find(request->sandbox_id());
    if (found == sandboxes_.end()) return failed(grpc::NOT_FOUND, "no sandbox " + request->sandbox_id());
    take(found->second, request->snapshot_id(), *reply);
    reply->mutable_live()->set_rounds(found->second.not_copied_ahead.empty() ? 3 : 0);
    reply->mutable_live()->set_last_round_bytes(4096);
    reply->mutable_live()->set_reason(found->second.not_copied_ahead);
    return Status::OK;
  });
  with([&] { return being_written_.erase(request->snapshot_id()); });
  return status;
}

Status ScriptedService::DeleteSnapshot(Context* context, const pb::DeleteSnapshotRequest* request,
                                       pb::DeleteSnapshotReply*) {
  return run("DeleteSnapshot", *context, [&]() -> Status {
    if (snapshots_.erase(request->snapshot_id()) == 1) return Status::OK;
    if (being_written_.contains(request->snapshot_id())) return failed(grpc::ABORTED, "it is being written");
    return failed(grpc::NOT_FOUND, "no such snapshot");
  });
}

Status ScriptedService::ListSnapshots(Context* context, const pb::ListSnapshotsRequest*,
                                      pb::ListSnapshotsReply* reply) {
  return run("ListSnapshots", *context, [&]() -> Status {
    for (const auto& [id, snapshot] : snapshots_) {
      pb::SnapshotInfo* info = reply->add_snapshots();
      info->set_snapshot_id(id);
      info->set_kind(snapshot.kind);
    }
    return Status::OK;
  });
}

void ScriptedService::take(const ScriptedSandbox& sandbox, const std::string& id, pb::SnapshotTaken& reply) {
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

Status ScriptedService::ListImages(Context* context, const pb::ListImagesRequest*, pb::ListImagesReply* reply) {
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

Status ScriptedService::ExportSnapshot(Context* context, const pb::ExportSnapshotRequest* request,
                                       grpc::ServerWriter<pb::ArchiveChunk>* writer) {
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

Status ScriptedService::ImportSnapshot(Context* context, grpc::ServerReader<pb::ImportSnapshotRequest>* reader,
                                       pb::ImportSnapshotReply* reply) {
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

Status ScriptedService::DescribeArchive(Context* context, const pb::DescribeArchiveRequest* request,
                                        pb::ArchiveDescription* reply) {
  return run("DescribeArchive", *context, [&]() -> Status {
    if (!request->head().starts_with("an archive")) return failed(grpc::INVALID_ARGUMENT, "this is no archive");
    reply->set_name("as-exported");
    return Status::OK;
  });
}

Status ScriptedService::GetKeptImport(Context* context, const pb::KeptImportRequest* request, pb::KeptImport* reply) {
  return run("GetKeptImport", *context, [&]() -> Status {
    const auto kept = kept_imports_.find(request->stream());
    if (kept == kept_imports_.end()) return failed(grpc::NOT_FOUND, "nothing is kept");
    reply->set_bytes(kept->second.size());
    reply->set_checksum(kScriptedChecksum);
    reply->set_name("as-exported");
    return Status::OK;
  });
}

Status ScriptedService::ForgetKeptImport(Context* context, const pb::KeptImportRequest* request,
                                         pb::ForgetKeptImportReply*) {
  return run("ForgetKeptImport", *context, [&]() -> Status {
    kept_imports_.erase(request->stream());
    return Status::OK;
  });
}

}  // namespace stasis::server::testing
