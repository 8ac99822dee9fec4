// The calls about the store: what is in it, whether it is whole, and making it smaller.
#include <algorithm>

#include "server/testing/scripted_service.h"

namespace stasis::server::testing {

using grpc::Status;

Status ScriptedService::CompactStore(Context* context, const pb::CompactStoreRequest* request,
                                     pb::CompactStoreReply* reply) {
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

Status ScriptedService::VerifySnapshots(Context* context, const pb::VerifySnapshotsRequest* request,
                                        grpc::ServerWriter<pb::VerifyEvent>* writer) {
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

Status ScriptedService::CollectStore(Context* context, const pb::CollectStoreRequest* request,
                                     pb::CollectStoreReply* reply) {
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

Status ScriptedService::GetScrubState(Context* context, const pb::GetScrubStateRequest*, pb::ScrubState* reply) {
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

Status ScriptedService::GetStoreUsage(Context* context, const pb::GetStoreUsageRequest*, pb::StoreUsage* reply) {
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

Status ScriptedService::InspectSnapshot(Context* context, const pb::InspectSnapshotRequest* request,
                                        pb::SnapshotDetail* reply) {
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

Status ScriptedService::DiffSnapshots(Context* context, const pb::DiffSnapshotsRequest* request,
                                      pb::SnapshotDiff* reply) {
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

}  // namespace stasis::server::testing
