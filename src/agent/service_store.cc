// The calls about the store.
#include <algorithm>

#include "agent/service.h"
#include "snapshot/verified.h"

namespace stasis::agent {
namespace {

using snapshot::SnapshotId;
using std::chrono::steady_clock;

constexpr std::chrono::milliseconds kProgressInterval{200};
constexpr int kMaxRemovedTold = 10'000;
constexpr int kMaxDamagedTold = 1000;
constexpr uint32_t kMaxCells = 65'536;

void fill(v1::SnapshotInfo* out, SnapshotId id, const snapshot::Manifest& manifest) {
  out->set_snapshot_id(id.text());
  out->set_kind(manifest.kind == snapshot::SnapshotKind::kImage ? "image" : "snapshot");
  if (!manifest.parent.is_nil()) out->set_parent_id(manifest.parent.text());
  out->set_created_unix_ms(manifest.created_unix_ms);
  out->set_vcpus(manifest.machine.vcpus);
  out->set_memory_mb(manifest.machine.memory_mib);
  out->set_stored_bytes(manifest.memory.stored_bytes + manifest.disk.stored_bytes);
}

void fill(v1::Damage* out, const snapshot::Damage& damage) {
  out->set_file(damage.file);
  if (damage.frame) out->set_frame(*damage.frame);
  out->set_message(damage.message);
  for (const SnapshotId id : damage.snapshots) out->add_snapshot_ids(id.text());
}

void fill(v1::VerifyProgress* out, const snapshot::VerifyProgress& progress) {
  out->set_bytes(progress.bytes);
  out->set_total_bytes(progress.total_bytes);
  out->set_layers(progress.layers);
  out->set_total_layers(progress.total_layers);
}

void fill(v1::VerifyDone* out, const snapshot::VerifyReport& report) {
  out->set_snapshots(report.snapshots);
  out->set_layers(report.layers);
  out->set_frames(report.frames);
  out->set_bytes(report.bytes);
  out->set_damages(report.damages);
}

void fill(v1::StoreHolder* out, const snapshot::HolderUsage& usage) {
  using Kind = snapshot::Holder::Kind;
  const snapshot::Holder& holder = usage.holder;
  out->set_kind(holder.kind == Kind::kImage ? "image" : holder.kind == Kind::kSnapshot ? "snapshot" : "sandbox");
  out->set_id(holder.id);
  if (!holder.parent.is_nil()) out->set_parent_id(holder.parent.text());
  out->set_created_unix_ms(holder.created_unix_ms);
  out->set_own_bytes(usage.own_bytes);
  out->set_shared_bytes(usage.shared_bytes);
  out->set_damage(holder.damage);
}

void fill(v1::SpaceDetail* out, const snapshot::SpaceDetail& detail, const snapshot::VerifiedLayers& verified) {
  out->set_name(detail.name);
  out->set_size(detail.metadata.size);
  out->set_generation(detail.metadata.generation);
  out->set_extents(detail.extents);
  out->set_data_bytes(detail.data_bytes);
  out->set_zero_bytes(detail.zero_bytes);
  out->set_own_bytes(detail.own_bytes);
  out->set_shared_bytes(detail.shared_bytes);
  out->set_fragmentation(detail.fragmentation);
  for (const snapshot::LayerUse& use : detail.layers) {
    v1::LayerUse* layer = out->add_layers();
    layer->set_layer_id(use.id.text());
    layer->set_generation(use.generation);
    layer->set_mapped_bytes(use.mapped_bytes);
    layer->set_extents(use.extents);
    layer->set_stored_bytes(use.stored_bytes);
    layer->set_shared(use.shared);
    layer->set_verified(verified.holds(use.id));
    layer->set_form(use.form == snapshot::LayerForm::kPacked ? "zstd" : "raw");
  }
  out->mutable_cells()->Add(detail.cells.begin(), detail.cells.end());
}

void fill(v1::FileChange* out, const files::FileChange& change) {
  out->set_change(std::string(files::change_kind_name(change.kind)));
  out->set_type_before(std::string(files::file_type_name(change.type_before)));
  out->set_type_now(std::string(files::file_type_name(change.type_now)));
  out->set_size_before(change.size_before);
  out->set_size_now(change.size_now);
  out->set_path(change.path);
  out->set_old_path(change.old_path);
  out->set_content((change.what & files::kContentChanged) != 0);
  out->set_mode((change.what & files::kModeChanged) != 0);
  out->set_owner((change.what & files::kOwnerChanged) != 0);
  out->set_attributes((change.what & files::kAttributesChanged) != 0);
}

void fill(v1::FileChanges* out, const Result<files::Report>& report) {
  if (!report) return out->set_note(report.error().message);
  out->set_added(report->count(files::ChangeKind::kAdded));
  out->set_removed(report->count(files::ChangeKind::kRemoved));
  out->set_modified(report->count(files::ChangeKind::kModified));
  out->set_metadata(report->count(files::ChangeKind::kMetadata));
  out->set_type(report->count(files::ChangeKind::kType));
  out->set_renamed(report->count(files::ChangeKind::kRenamed));
  for (const files::FileChange& change : report->changes) fill(out->add_changes(), change);
}

void fill(v1::SpaceDiff* out, const Host::Difference& difference) {
  const snapshot::SpaceDiff& diff = difference.diff;
  out->set_name(difference.space);
  out->set_from_size(difference.from_size);
  out->set_to_size(difference.to_size);
  out->set_same_source_bytes(diff.same_source_bytes);
  out->set_compared_bytes(diff.compared_bytes);
  out->set_changed_bytes(diff.changed_bytes);
  out->set_became_zero_bytes(diff.became_zero_bytes);
  out->set_became_data_bytes(diff.became_data_bytes);
  out->set_runs(diff.runs);
  for (const Range& range : diff.changed) {
    v1::ByteRange* changed = out->add_changed();
    changed->set_offset(range.offset);
    changed->set_length(range.length);
  }
  if (difference.files) fill(out->mutable_files(), *difference.files);
}

}  // namespace

grpc::Status Service::ListSnapshots(Context* context, const v1::ListSnapshotsRequest*, v1::ListSnapshotsReply* reply) {
  const auto ids = host_.store().list();
  if (!ids) return answer(context, ids.error());
  for (const SnapshotId id : *ids) {
    if (host_.is_warm_base(id)) continue;
    const auto lock = host_.store().lock_shared();
    if (!lock) return answer(context, lock.error());
    const auto manifest = host_.store().load(id);
    if (!manifest) continue;  // deleted meanwhile, or damaged: it cannot be described
    v1::SnapshotInfo* info = reply->add_snapshots();
    fill(info, id, *manifest);
    if (!manifest->disk_map) continue;
    if (const auto disk = host_.store().read_map(id, *manifest->disk_map)) info->set_disk_bytes(disk->size());
  }
  return grpc::Status::OK;
}

grpc::Status Service::VerifySnapshots(Context* context, const v1::VerifySnapshotsRequest* request,
                                      grpc::ServerWriter<v1::VerifyEvent>* writer) {
  const StreamSlot slot(*this);
  if (!slot.taken()) return answer(context, StreamSlot::none_left());
  std::vector<SnapshotId> ids;
  for (const std::string& text : request->snapshot_ids()) {
    const auto id = snapshot_id(text);
    if (!id) return answer(context, id.error());
    ids.push_back(*id);
  }
  snapshot::VerifyOptions options;
  auto next = steady_clock::now();
  options.on_progress = [&](const snapshot::VerifyProgress& progress) {
    if (context->IsCancelled()) return false;
    const auto now = steady_clock::now();
    if (now < next && progress.bytes < progress.total_bytes) return true;
    next = now + kProgressInterval;
    v1::VerifyEvent event;
    fill(event.mutable_progress(), progress);
    return writer->Write(event);
  };
  options.on_damage = [&](const snapshot::Damage& damage) {
    v1::VerifyEvent event;
    fill(event.mutable_damage(), damage);
    writer->Write(event);  // a reader that has gone is noticed by the next progress
  };
  const auto report = host_.verify(std::move(ids), options);
  if (!report) return answer(context, report.error());
  v1::VerifyEvent event;
  fill(event.mutable_done(), *report);
  writer->Write(event);
  return grpc::Status::OK;
}

grpc::Status Service::CollectStore(Context* context, const v1::CollectStoreRequest* request,
                                   v1::CollectStoreReply* reply) {
  const auto stats = host_.collect_store(request->dry_run(), std::chrono::seconds(request->grace_sec()));
  if (!stats) return answer(context, stats.error());
  for (const auto& removed : stats->removed) {
    if (reply->removed_size() == kMaxRemovedTold) break;
    v1::CollectStoreReply::Removed* one = reply->add_removed();
    one->set_file(removed.file);
    one->set_bytes(removed.bytes);
  }
  reply->set_count(stats->removed.size());
  reply->set_bytes(stats->bytes_freed);
  reply->set_kept_young(stats->files_kept);
  return grpc::Status::OK;
}

grpc::Status Service::GetStoreUsage(Context* context, const v1::GetStoreUsageRequest*, v1::StoreUsage* reply) {
  const auto usage = host_.usage();
  if (!usage) return answer(context, usage.error());
  for (const snapshot::HolderUsage& holder : usage->store.holders) fill(reply->add_holders(), holder);
  reply->set_layers(usage->store.layers);
  reply->set_total_bytes(usage->store.total_bytes);
  if (usage->reclaimable_bytes) reply->set_reclaimable_bytes(*usage->reclaimable_bytes);
  return grpc::Status::OK;
}

grpc::Status Service::GetScrubState(Context*, const v1::GetScrubStateRequest*, v1::ScrubState* reply) {
  const ScrubStatus status = host_.scrub_status();
  reply->set_started_unix_ms(status.started_unix_ms);
  reply->set_finished_unix_ms(status.finished_unix_ms);
  reply->set_under_way(status.under_way);
  reply->set_checked_bytes(status.bytes);
  for (const std::string& file : status.all_damaged()) {
    if (reply->damaged_size() < kMaxDamagedTold) reply->add_damaged(file);
  }
  return grpc::Status::OK;
}

grpc::Status Service::InspectSnapshot(Context* context, const v1::InspectSnapshotRequest* request,
                                      v1::SnapshotDetail* reply) {
  const auto id = snapshot_id(request->snapshot_id());
  if (!id) return answer(context, id.error());
  const auto detail = host_.inspect(*id, std::clamp(request->cells(), 1U, kMaxCells));
  if (!detail) return answer(context, detail.error());
  const auto line = snapshot::lineage(host_.store(), *id);
  if (!line) return answer(context, line.error());
  fill(reply->mutable_info(), *id, detail->manifest);
  for (const snapshot::Ancestor& ancestor : std::span(*line).subspan(1)) {
    v1::SnapshotInfo* parent = reply->add_parents();
    parent->set_snapshot_id(ancestor.id.text());
    if (ancestor.manifest) fill(parent, ancestor.id, *ancestor.manifest);
  }
  const snapshot::VerifiedLayers verified(host_.store());
  for (const snapshot::SpaceDetail& space : detail->spaces) fill(reply->add_spaces(), space, verified);
  reply->set_part_bytes(detail->part_bytes);
  reply->set_own_bytes(detail->own_bytes);
  reply->set_shared_bytes(detail->shared_bytes);
  reply->set_vmm(detail->manifest.vmm);
  reply->set_kernel(detail->manifest.kernel);
  return grpc::Status::OK;
}

grpc::Status Service::DiffSnapshots(Context* context, const v1::DiffSnapshotsRequest* request,
                                    v1::SnapshotDiff* reply) {
  const StreamSlot slot(*this);
  if (!slot.taken()) return answer(context, StreamSlot::none_left());
  const auto from = snapshot_id(request->from_id());
  if (!from) return answer(context, from.error());
  const auto to = snapshot_id(request->to_id());
  if (!to) return answer(context, to.error());
  const auto differences = host_.diff(*from, *to, [&] { return !context->IsCancelled(); });
  if (!differences) return answer(context, differences.error());
  for (const Host::Difference& difference : *differences) fill(reply->add_spaces(), difference);
  return grpc::Status::OK;
}

}  // namespace stasis::agent
