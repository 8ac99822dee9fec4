// HostAgent: snapshots as streams, and compaction on request.
#include <algorithm>
#include <cstring>

#include "agent/cancel_watch.h"
#include "agent/service.h"

namespace stasis::agent {
namespace {

using snapshot::SnapshotId;

// A record of an archive has up to 1 MiB; messages stay well below gRPC's limit of 4.
constexpr size_t kChunk = 512 << 10;

void add(v1::CompactStoreReply* reply, SnapshotId id, const snapshot::CompactResult& result) {
  v1::CompactedSnapshot* out = reply->add_snapshots();
  out->set_snapshot_id(id.text());
  out->set_spaces(result.spaces);
  out->set_layers_before(result.layers_before);
  out->set_live_bytes(result.live_bytes);
  out->set_read_bytes(result.read_bytes);
  out->set_stored_before(result.stored_before);
  out->set_stored_after(result.stored_after);
}

Status compact_all(Compactor& compactor, int cancel_fd, v1::CompactStoreReply* reply) {
  STASIS_ASSIGN(const auto plans, compactor.plan());
  for (const snapshot::CompactPlan& plan : plans) {
    STASIS_ASSIGN(const auto result, compactor.compact(plan, RateLimit(0, cancel_fd)));
    add(reply, plan.id, result);
  }
  return {};
}

Result<Uuid> stream_id(const std::string& text) {
  auto id = Uuid::parse(text);
  if (id && !id->is_nil()) return id;
  return fail(Code::kInvalidArgument, "the name of an import's stream is not a UUID");
}

// Nothing: it is not to be kept.
Result<std::optional<snapshot::ImportStream>> stream_of(const v1::ImportSnapshotRequest::Open& open) {
  if (open.stream().empty() && open.kept_bytes() == 0) return std::nullopt;
  STASIS_ASSIGN(const Uuid id, stream_id(open.stream()));
  return snapshot::ImportStream{id, {open.kept_bytes(), open.kept_checksum()}};
}

}  // namespace

grpc::Status Service::CompactStore(Context* context, const v1::CompactStoreRequest* request,
                                   v1::CompactStoreReply* reply) {
  const StreamSlot slot(*this);
  if (!slot.taken()) return answer(context, StreamSlot::none_left());
  const auto watch = CancelWatch::start(context);
  if (!watch) return answer(context, watch.error());
  if (request->snapshot_id().empty() && !request->packed()) {
    const Status done = compact_all(host_.compactor(), (*watch)->fd(), reply);
    return done ? grpc::Status::OK : answer(context, done.error());
  }
  const auto id = snapshot_id(request->snapshot_id());
  if (!id) return answer(context, id.error());
  Compactor& compactor = host_.compactor();
  const auto result = request->packed() ? compactor.pack(*id, (*watch)->fd()) : compactor.compact(*id, (*watch)->fd());
  if (!result) return answer(context, result.error());
  add(reply, *id, *result);
  return grpc::Status::OK;
}

grpc::Status Service::ExportSnapshot(Context* context, const v1::ExportSnapshotRequest* request,
                                     grpc::ServerWriter<v1::ArchiveChunk>* writer) {
  const StreamSlot slot(*this);
  if (!slot.taken()) return answer(context, StreamSlot::none_left());
  const auto id = snapshot_id(request->snapshot_id());
  if (!id) return answer(context, id.error());
  v1::ArchiveChunk chunk;
  const auto send = [&](std::span<const std::byte> bytes) -> Status {
    while (!bytes.empty()) {
      const auto piece = bytes.first(std::min(bytes.size(), kChunk));
      chunk.set_data(piece.data(), piece.size());
      if (!writer->Write(chunk)) return fail(Code::kCancelled, "the reader has gone");
      bytes = bytes.subspan(piece.size());
    }
    return {};
  };
  const auto length = host_.export_snapshot(*id, request->name(), request->from(), send);
  if (!length) return answer(context, length.error());
  chunk.clear_data();
  chunk.set_total(*length);
  writer->Write(chunk);
  return grpc::Status::OK;
}

grpc::Status Service::ImportSnapshot(Context* context, grpc::ServerReader<v1::ImportSnapshotRequest>* reader,
                                     v1::ImportSnapshotReply* reply) {
  const StreamSlot slot(*this);
  if (!slot.taken()) return answer(context, StreamSlot::none_left());
  v1::ImportSnapshotRequest message;
  if (!reader->Read(&message) || !message.has_open()) {
    return answer(context, {Code::kInvalidArgument, "the first message of ImportSnapshot must be `open`"});
  }
  const auto id = snapshot_id(message.open().snapshot_id());
  if (!id) return answer(context, id.error());
  const auto stream = stream_of(message.open());
  if (!stream) return answer(context, stream.error());
  message.Clear();
  size_t used = 0;
  const auto source = [&](std::span<std::byte> out) -> Result<size_t> {
    while (used == message.data().size()) {
      used = 0;
      if (reader->Read(&message)) continue;
      message.Clear();
      if (context->IsCancelled()) return fail(Code::kCancelled, "the writer has gone");
      return 0;
    }
    const size_t n = std::min(out.size(), message.data().size() - used);
    std::memcpy(out.data(), message.data().data() + used, n);
    used += n;
    return n;
  };
  const auto imported = host_.import_snapshot(*id, *stream, source);
  if (!imported) return answer(context, imported.error());
  reply->set_name(imported->name);
  reply->set_vcpus(imported->manifest.machine.vcpus);
  reply->set_memory_mb(imported->manifest.machine.memory_mib);
  reply->set_disk_bytes(imported->disk_bytes);
  reply->set_stored_bytes(imported->manifest.memory.stored_bytes + imported->manifest.disk.stored_bytes);
  return grpc::Status::OK;
}

grpc::Status Service::DescribeArchive(Context* context, const v1::DescribeArchiveRequest* request,
                                      v1::ArchiveDescription* reply) {
  std::string_view rest = request->head();
  const auto head = [&](std::span<std::byte> out) -> Result<size_t> {
    const size_t n = std::min(out.size(), rest.size());
    std::memcpy(out.data(), rest.data(), n);
    rest.remove_prefix(n);
    return n;
  };
  const auto name = Host::archive_name(head);
  if (!name) return answer(context, name.error());
  reply->set_name(*name);
  return grpc::Status::OK;
}

grpc::Status Service::GetKeptImport(Context* context, const v1::KeptImportRequest* request, v1::KeptImport* reply) {
  const auto stream = stream_id(request->stream());
  if (!stream) return answer(context, stream.error());
  const auto kept = host_.kept_import(*stream);
  if (!kept) return answer(context, kept.error());
  reply->set_bytes(kept->kept.bytes);
  reply->set_checksum(kept->kept.checksum);
  reply->set_name(kept->name);
  return grpc::Status::OK;
}

grpc::Status Service::ForgetKeptImport(Context* context, const v1::KeptImportRequest* request,
                                       v1::ForgetKeptImportReply*) {
  const auto stream = stream_id(request->stream());
  if (!stream) return answer(context, stream.error());
  const Status forgotten = host_.forget_kept_import(*stream);
  return forgotten ? grpc::Status::OK : answer(context, forgotten.error());
}

}  // namespace stasis::agent
