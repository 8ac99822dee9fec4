#include "server/settler.h"

#include "base/clock.h"
#include "base/log.h"

namespace stasis::server {
namespace {

constexpr uint64_t kMiB = 1 << 20;
constexpr uint32_t kDefaultVcpus = 1;
constexpr uint32_t kDefaultMemoryMb = 256;

Result<std::set<std::string>> snapshot_ids(HostAgentApi& agent) {
  STASIS_ASSIGN(const pb::ListSnapshotsReply reply, agent.list_snapshots());
  std::set<std::string> ids;
  for (const pb::SnapshotInfo& info : reply.snapshots()) ids.insert(info.snapshot_id());
  return ids;
}

TemplateRecord base_template(const pb::ImageInfo& image) {
  TemplateRecord record;
  record.name = image.name();
  record.type = "base";
  record.vcpus = kDefaultVcpus;
  record.memory_mb = kDefaultMemoryMb;
  record.disk_mb = static_cast<uint32_t>((image.disk_bytes() + kMiB - 1) / kMiB);
  record.size_bytes = image.size_bytes();
  record.snapshot_id = image.snapshot_id();
  record.created_ms = unix_time_ms();
  return record;
}

Status put_image(Tables& tables, const pb::ImageInfo& image) {
  const TemplateRecord wanted = base_template(image);
  STASIS_ASSIGN(const std::optional<TemplateRecord> known, tables.templates.find(wanted.name));
  if (!known) return tables.templates.insert(wanted);
  if (known->type != "base") {
    spdlog::warn("image '{}' is hidden by a snapshot of that name", wanted.name);
    return {};
  }
  if (known->snapshot_id == wanted.snapshot_id) return {};
  return tables.templates.put(wanted);
}

Status drop_missing_images(Tables& tables, const pb::ListImagesReply& images) {
  STASIS_ASSIGN(const std::vector<TemplateRecord> bases, tables.templates.list("base"));
  for (const TemplateRecord& base : bases) {
    bool present = false;
    for (const pb::ImageInfo& image : images.images()) present = present || image.name() == base.name;
    if (!present) STASIS_TRY(tables.templates.remove(base.name));
  }
  return {};
}

}  // namespace

const pb::SandboxInfo* HostView::find(const std::string& id) const {
  const auto found = sandboxes.find(id);
  return found == sandboxes.end() ? nullptr : &found->second;
}

pb::DestroySandboxRequest destroy_request(const std::string& id, const std::string& reason) {
  pb::DestroySandboxRequest request;
  request.set_sandbox_id(id);
  request.set_reason(reason);
  return request;
}

Result<HostView> Settler::look() {
  STASIS_ASSIGN(const pb::ListSandboxesReply reply, agent_.list_sandboxes());
  HostView view;
  for (const pb::SandboxInfo& info : reply.sandboxes()) view.sandboxes[info.sandbox_id()] = info;
  return view;
}

Status Settler::settle(const SandboxRecord& record, HostView& view, const std::string& failure) {
  Observation seen{view.find(record.id), false, false, unix_time_ms(), failure};
  if (needs_snapshots(record, host_state(seen.info))) {
    // Listed after the sandboxes: a pause that ended in between shows here.
    if (!view.snapshots) {
      STASIS_ASSIGN(view.snapshots, snapshot_ids(agent_));
    }
    seen.pending_exists = view.snapshots->contains(record.pending_snapshot_id);
    seen.snapshot_exists = view.snapshots->contains(record.snapshot_id);
  }
  const Decision decision = decide(record, seen);
  if (decision.destroy_on_host) {
    STASIS_TRY(agent_.destroy_sandbox(destroy_request(record.id, "its VMM has ended")));
  }
  if (!decision.transition) return {};
  STASIS_ASSIGN(const bool changed, store_.write([&](Tables& tables) -> Result<bool> {
    STASIS_ASSIGN(const bool done, tables.sandboxes.change(*decision.transition));
    if (!done) return false;
    for (const std::string& id : decision.released) STASIS_TRY(tables.orphans.release(id));
    return true;
  }));
  if (changed) {
    spdlog::info("sandbox {}: {} -> {} by what the host says{}{}", record.id, state_name(record.state),
                 state_name(decision.transition->to), decision.transition->reason.empty() ? "" : ": ",
                 decision.transition->reason);
  }
  return {};
}

Status Settler::end(const SandboxRecord& record) {
  auto reply = agent_.destroy_sandbox(destroy_request(record.id, record.reason));
  if (!reply && reply.error().code != Code::kNotFound) return fail(std::move(reply).error());
  return store_.write([&](Tables& tables) -> Status {
    // Read again: a pause that was under way may have left its id since.
    STASIS_ASSIGN(const std::optional<SandboxRecord> now, tables.sandboxes.find(record.id));
    if (!now || now->state != State::kStopping) return {};  // somebody else has ended it
    STASIS_TRY(tables.sandboxes.change(
        {record.id,
         State::kStopping,
         now->epoch,
         State::kStopped,
         now->reason,
         {{"snapshot_id", ""}, {"pending_snapshot_id", ""}, {"deadline_ms", int64_t{0}}, {"address", ""}}}));
    STASIS_TRY(tables.orphans.release(now->snapshot_id));
    return tables.orphans.release(now->pending_snapshot_id);
  });
}

void Settler::collect() {
  const auto ids = store_.write([](Tables& tables) { return tables.orphans.unreferenced(); });
  if (!ids) {
    spdlog::warn("snapshots that nothing refers to: {}", ids.error().message);
    return;
  }
  for (const std::string& id : *ids) {
    Status done = agent_.delete_snapshot(id);
    if (done) done = store_.write([&](Tables& tables) { return tables.orphans.forget(id); });
    if (done || done.error().code == Code::kAborted) continue;  // it is still being written
    spdlog::warn("snapshot {} could not be deleted, trying again later: {}", id, done.error().message);
  }
}

Status Settler::sync_images() {
  STASIS_ASSIGN(const pb::ListImagesReply images, agent_.list_images());
  return store_.write([&](Tables& tables) -> Status {
    for (const pb::ImageInfo& image : images.images()) STASIS_TRY(put_image(tables, image));
    return drop_missing_images(tables, images);
  });
}

}  // namespace stasis::server
