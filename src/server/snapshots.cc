// Named snapshots: templates made from sandboxes.
#include "base/clock.h"
#include "base/log.h"
#include "base/uuid.h"
#include "server/operations.h"
#include "server/snapshot_names.h"

namespace stasis::server {
namespace {

// Enough of an archive to tell its name.
constexpr size_t kArchiveHead = 80 << 10;

TemplateRecord new_template(const SnapshotRequest& request, const SandboxRecord& sandbox) {
  TemplateRecord record;
  record.name = request.name;
  record.type = "snapshot";
  record.sandbox_id = request.sandbox_id;
  record.source_template = sandbox.template_name;
  record.created_ms = unix_time_ms();
  return record;
}

Status check_free(Tables& tables, const SnapshotRequest& request) {
  STASIS_ASSIGN(const std::optional<TemplateRecord> known, tables.templates.find(request.name));
  if (!known) return {};
  if (known->type == "base") {
    return fail(Code::kFailedPrecondition, "'" + request.name + "' is the name of a base image", "choose another name");
  }
  if (request.overwrite) return {};
  return fail(Code::kAlreadyExists, "there is a snapshot '" + request.name + "'",
              "choose another name, or replace it with ?overwrite=true (--overwrite)");
}

// Gives the name to the new snapshot; what it named before loses a reference.
Status publish(Tables& tables, const SnapshotRequest& request, const TemplateRecord& record) {
  STASIS_TRY(check_free(tables, request));
  STASIS_ASSIGN(const std::optional<TemplateRecord> before, tables.templates.find(record.name));
  STASIS_TRY(tables.templates.put(record));
  if (before) STASIS_TRY(tables.orphans.release(before->snapshot_id));
  return {};
}

Status check_request(const SnapshotRequest& request) {
  if (valid_name(request.name)) return {};
  return fail(Code::kInvalidArgument, "the name of the snapshot is not valid",
              "use 1 to 63 of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit, without '..'");
}

}  // namespace

// The pause's snapshot gets a name: nothing is written at the host.
Result<TemplateRecord> Operations::snapshot_of_paused(const SnapshotRequest& request) {
  return store_.write([&](Tables& tables) -> Result<TemplateRecord> {
    STASIS_ASSIGN(const SandboxRecord sandbox, tables.sandboxes.get(request.sandbox_id));
    if (sandbox.state != State::kPaused) return fail(wrong_state(sandbox, "be snapshotted"));
    TemplateRecord record = new_template(request, sandbox);
    record.vcpus = sandbox.vcpus;
    record.memory_mb = sandbox.memory_mb;
    record.disk_mb = sandbox.disk_mb;
    record.snapshot_id = sandbox.snapshot_id;
    record.capture = sandbox.last_snapshot;
    if (record.capture.is_object()) record.size_bytes = record.capture.value("stored_bytes", uint64_t{0});
    STASIS_TRY(publish(tables, request, record));
    return record;
  });
}

Result<TemplateRecord> Operations::snapshot_of_running(const SnapshotRequest& request, const SandboxRecord& sandbox) {
  STASIS_TRY(agent_.check(kAgentPatience));
  STASIS_ASSIGN(const auto guard, active_.begin(sandbox.id, Activity::kExclusive));
  const std::string snapshot_id = Uuid::random().text();
  STASIS_TRY(store_.write([&](Tables& tables) -> Status {
    STASIS_ASSIGN(const SandboxRecord now, tables.sandboxes.get(sandbox.id));
    if (now.state != State::kRunning) return fail(wrong_state(now, "be snapshotted"));
    return tables.orphans.make(snapshot_id);
  }));
  pb::CreateSnapshotRequest message;
  message.set_sandbox_id(sandbox.id);
  message.set_snapshot_id(snapshot_id);
  const auto taken = agent_.create_snapshot(message);
  if (!taken) {
    drop_snapshot(snapshot_id);
    wake_();
    return fail(Error(taken.error()).with_context("snapshot of sandbox " + sandbox.id));
  }
  TemplateRecord record = new_template(request, sandbox);
  record.vcpus = taken->vcpus();
  record.memory_mb = taken->memory_mb();
  record.disk_mb = static_cast<uint32_t>(taken->disk_bytes() >> 20);
  record.size_bytes = taken->stored_bytes();
  record.snapshot_id = snapshot_id;
  record.capture = capture_json(*taken);
  const Status published = store_.write([&](Tables& tables) -> Status {
    STASIS_TRY(publish(tables, request, record));
    STASIS_TRY(tables.orphans.forget(snapshot_id));
    return tables.sandboxes.set_last_snapshot(sandbox.id, record.capture);
  });
  if (!published) {
    drop_snapshot(snapshot_id);
    return fail(published.error());
  }
  return record;
}

Result<TemplateRecord> Operations::snapshot(const SnapshotRequest& request) {
  STASIS_TRY(check_request(request));
  STASIS_ASSIGN(const SandboxRecord sandbox, store_.read([&](Tables& tables) -> Result<SandboxRecord> {
    STASIS_ASSIGN(SandboxRecord found, tables.sandboxes.get(request.sandbox_id));
    STASIS_TRY(check_free(tables, request));
    return found;
  }));
  if (sandbox.state != State::kRunning && sandbox.state != State::kPaused) {
    return fail(wrong_state(sandbox, "be snapshotted"));
  }
  STASIS_ASSIGN(TemplateRecord record,
                sandbox.state == State::kPaused ? snapshot_of_paused(request) : snapshot_of_running(request, sandbox));
  settler_.collect();  // what the name stood for before
  const auto policies = store_.read([](Tables& tables) { return tables.retention.list(); });
  if (policies && !policies->empty()) wake_();  // it may be one more than is kept
  spdlog::info("snapshot '{}' of sandbox {}: {} bytes stored", record.name, record.sandbox_id, record.size_bytes);
  return record;
}

Result<std::string> Operations::archive_name(const ImportRequest& request, const ByteSource& source,
                                             std::string& taken) {
  if (request.kept_bytes > 0) {
    const auto kept = agent_.kept_import(request.stream);
    if (kept) return kept->name();
    if (kept.error().code == Code::kNotFound) return std::string();  // the import will say so
    return fail(kept.error());
  }
  bool more = true;
  while (more && taken.size() < kArchiveHead) {
    STASIS_ASSIGN(const std::string_view piece, source());
    more = !piece.empty();
    taken += piece;
  }
  pb::DescribeArchiveRequest head;
  head.set_head(taken.substr(0, kArchiveHead));
  STASIS_ASSIGN(const pb::ArchiveDescription description, agent_.describe_archive(head));
  return description.name();
}

Result<TemplateRecord> Operations::import_snapshot(const ImportRequest& wanted, const ByteSource& source) {
  STASIS_TRY(agent_.check(kAgentPatience));
  SnapshotRequest request{"", wanted.name, wanted.overwrite};
  std::string head;
  if (request.name.empty()) {
    STASIS_ASSIGN(request.name, archive_name(wanted, source, head));
  }
  pb::ImportSnapshotRequest::Open open;
  open.set_snapshot_id(Uuid::random().text());
  open.set_stream(wanted.stream);
  open.set_kept_bytes(wanted.kept_bytes);
  open.set_kept_checksum(wanted.kept_checksum);
  const bool named = !request.name.empty();
  if (named) STASIS_TRY(check_request(request));
  const auto expect = [&](Tables& tables) -> Status {
    if (named) STASIS_TRY(check_free(tables, request));
    return tables.orphans.make(open.snapshot_id());
  };
  STASIS_TRY(store_.write(expect));
  bool head_sent = head.empty();
  const auto whole = [&]() -> Result<std::string_view> {
    if (head_sent) return source();
    head_sent = true;
    return head;
  };
  const auto imported = agent_.import_snapshot(open, whole);
  if (!imported) {
    drop_snapshot(open.snapshot_id());
    wake_();
    return fail(imported.error());
  }
  if (!named) request.name = imported->name();
  TemplateRecord record = new_template(request, {});  // of no sandbox
  record.vcpus = imported->vcpus();
  record.memory_mb = imported->memory_mb();
  record.disk_mb = static_cast<uint32_t>(imported->disk_bytes() >> 20);
  record.size_bytes = imported->stored_bytes();
  record.snapshot_id = open.snapshot_id();
  const Status published = store_.write([&](Tables& tables) -> Status {
    STASIS_TRY(check_request(request));
    STASIS_TRY(publish(tables, request, record));
    return tables.orphans.forget(open.snapshot_id());
  });
  if (!published) {
    drop_snapshot(open.snapshot_id());
    return fail(published.error());
  }
  if (!wanted.stream.empty()) forget_import(wanted.stream);
  settler_.collect();  // what the name stood for before
  spdlog::info("snapshot '{}': imported, {} bytes", record.name, record.size_bytes);
  return record;
}

// Not before the snapshot has its name: one that could not get it is tried again with what is kept.
void Operations::forget_import(const std::string& stream) {
  const Status forgotten = agent_.forget_kept_import(stream);
  if (!forgotten) spdlog::warn("import {}: what was kept of it stays a while: {}", stream, forgotten.error().message);
}

Status Operations::delete_snapshot(const std::string& name) {
  const Status removed = store_.write([&](Tables& tables) -> Status {
    STASIS_ASSIGN(const TemplateRecord known, find_snapshot(tables, name));
    if (known.type == "base") {
      return fail(Code::kFailedPrecondition, "'" + name + "' is a base image: it is not deleted through this API",
                  "start the agent without that --image");
    }
    STASIS_TRY(tables.templates.remove(name));
    return tables.orphans.release(known.snapshot_id);
  });
  STASIS_TRY(removed);
  settler_.collect();
  spdlog::info("snapshot '{}': deleted", name);
  return {};
}

}  // namespace stasis::server
