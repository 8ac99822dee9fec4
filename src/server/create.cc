// Creating a sandbox from a template.
#include "base/clock.h"
#include "base/log.h"
#include "base/uuid.h"
#include "server/operations.h"
#include "server/random_text.h"

namespace stasis::server {
namespace {

constexpr uint32_t kMaxVcpus = 32;
constexpr uint32_t kMinMemoryMb = 128;
constexpr uint32_t kMaxMemoryMb = 65536;
constexpr uint32_t kMaxDiskMb = 1 << 20;
constexpr size_t kIdLength = 20;
constexpr size_t kTokenLength = 40;

Status check_range(std::string_view name, uint32_t value, uint32_t low, uint32_t high) {
  if (value >= low && value <= high) return {};
  return fail(Code::kInvalidArgument, std::string(name) + " is " + std::to_string(value) + ": it must be " +
                                          std::to_string(low) + " to " + std::to_string(high));
}

// A snapshot's machine is what it is: a request may repeat its shape, not change it.
Status check_same(std::string_view name, std::optional<uint32_t> wanted, uint32_t has,
                  const std::string& template_name) {
  if (!wanted || *wanted == has) return {};
  return fail(Code::kInvalidArgument,
              std::string(name) + " " + std::to_string(*wanted) + " was asked for, but the snapshot '" + template_name +
                  "' was taken with " + std::to_string(has),
              "leave " + std::string(name) + " out, or create from a base image");
}

Status set_shape(SandboxRecord& record, const CreateRequest& request, const TemplateRecord& source) {
  if (source.type == "snapshot") {
    STASIS_TRY(check_same("vcpus", request.vcpus, source.vcpus, source.name));
    STASIS_TRY(check_same("memory_mb", request.memory_mb, source.memory_mb, source.name));
    STASIS_TRY(check_same("disk_mb", request.disk_mb, source.disk_mb, source.name));
  }
  record.vcpus = request.vcpus.value_or(source.vcpus);
  record.memory_mb = request.memory_mb.value_or(source.memory_mb);
  record.disk_mb = request.disk_mb.value_or(source.disk_mb);
  if (source.type == "snapshot") return {};
  STASIS_TRY(check_range("vcpus", record.vcpus, 1, kMaxVcpus));
  STASIS_TRY(check_range("memory_mb", record.memory_mb, kMinMemoryMb, kMaxMemoryMb));
  return check_range("disk_mb", record.disk_mb, source.disk_mb, kMaxDiskMb);
}

pb::CreateSandboxRequest agent_request(const SandboxRecord& record, const CreateRequest& request,
                                       const TemplateRecord& source) {
  pb::CreateSandboxRequest message;
  message.set_sandbox_id(record.id);
  message.set_snapshot_id(source.snapshot_id);
  if (source.type == "base") {
    message.set_vcpus(record.vcpus);
    message.set_memory_mb(record.memory_mb);
    message.set_disk_mb(request.disk_mb.value_or(0));
    message.set_cold(request.cold);
  }
  message.set_restore(request.restore.way);
  message.set_load_mib_per_s(request.restore.load_mib_per_s);
  message.set_timeout_sec(record.timeout_sec);
  for (const auto& [name, value] : record.env.items()) (*message.mutable_env())[name] = value.get<std::string>();
  message.set_access_token(record.access_token);
  message.set_hostname(record.id);
  return message;
}

bool never_ran(const SandboxRecord& sandbox) {
  return sandbox.started_ms == 0 && (sandbox.state == State::kStopped || sandbox.state == State::kError);
}

// What an earlier request with this key made; nothing if this one is the first, or may try again.
Result<std::optional<CreateOutcome>> earlier(Tables& tables, const IdempotencyKey& key) {
  STASIS_ASSIGN(const std::optional<IdempotencyRecord> known, tables.idempotency.find(key.key));
  if (!known) return std::nullopt;
  if (known->request != key.request) return CreateOutcome{{}, false, true};
  STASIS_ASSIGN(SandboxRecord sandbox, tables.sandboxes.get(known->sandbox_id));
  if (never_ran(sandbox)) return std::nullopt;
  if (sandbox.state == State::kPending || sandbox.state == State::kStarting) {
    return fail(Code::kAborted, "the first request with this Idempotency-Key is still being served",
                "send it again in a moment");
  }
  return CreateOutcome{std::move(sandbox), true, false};
}

}  // namespace

Result<TemplateRecord> Operations::find_template(const std::string& name) {
  const auto look = [&] { return store_.read([&](Tables& tables) { return tables.templates.find(name); }); };
  STASIS_ASSIGN(std::optional<TemplateRecord> found, look());
  if (!found) {
    // Perhaps an image of a host that has just come up.
    STASIS_TRY(agent_.check(kAgentPatience));
    STASIS_TRY(settler_.sync_images());
    STASIS_ASSIGN(found, look());
  }
  if (!found) {
    return fail(Code::kNotFound, "there is no template '" + name + "'",
                "GET /v1/snapshots (stasis snapshot ls) lists images and snapshots");
  }
  return std::move(*found);
}

// Writes the row, as starting, in one transaction with its key; or tells what the key already stands for.
Result<std::optional<CreateOutcome>> Operations::enter(SandboxRecord& record,
                                                       const std::optional<IdempotencyKey>& key) {
  return store_.write([&](Tables& tables) -> Result<std::optional<CreateOutcome>> {
    if (key) {
      STASIS_ASSIGN(std::optional<CreateOutcome> known, earlier(tables, *key));
      if (known) return known;
    }
    STASIS_TRY(tables.sandboxes.insert(record));
    if (key) STASIS_TRY(tables.idempotency.put({key->key, key->request, record.id}));
    STASIS_TRY(tables.sandboxes.change({record.id, State::kPending, 0, State::kStarting, "", {}}));
    record.state = State::kStarting;
    record.epoch = 1;
    return std::optional<CreateOutcome>();
  });
}

// With an Idempotency-Key the client asks again, so what the host made after all is kept for it. Without one nobody
// knows of the sandbox, and it is ended.
Error Operations::create_failed(const SandboxRecord& record, Error error, bool repeatable) {
  if (outcome_unknown(error) && !repeatable) {
    const auto stopping = store_.write([&](Tables& tables) {
      return tables.sandboxes.change(
          {record.id, State::kStarting, record.epoch, State::kStopping, "create failed: " + error.message, {}});
    });
    if (stopping && *stopping) {
      SandboxRecord ending = record;
      ending.state = State::kStopping;
      ending.reason = "create failed";
      const Status ended = settler_.end(ending);
      if (!ended) wake_();
    }
  } else {
    Error reason = error;
    reason.message = "create failed: " + error.message;
    settle_failure(record, reason, State::kStopped);
  }
  spdlog::warn("sandbox {}: create failed: {}", record.id, error.message);
  return std::move(error).with_context("create a sandbox from '" + record.template_name + "'");
}

Result<CreateOutcome> Operations::create(const CreateRequest& request, const std::optional<IdempotencyKey>& key) {
  if (key) {
    // Before anything that can fail: what it made stays what it made, also when its template is gone.
    STASIS_ASSIGN(std::optional<CreateOutcome> known,
                  store_.read([&](Tables& tables) { return earlier(tables, *key); }));
    if (known) return std::move(*known);
  }
  STASIS_ASSIGN(const TemplateRecord source, find_template(request.template_name));
  SandboxRecord record;
  record.id = random_text(kIdLength, kLowerAndDigits);
  record.template_name = source.name;
  record.base_snapshot_id = source.snapshot_id;
  STASIS_TRY(set_shape(record, request, source));
  record.timeout_sec = request.timeout_sec;
  record.deadline_ms = deadline_after(request.timeout_sec);
  record.metadata = request.metadata;
  record.env = request.env;
  record.access_token = random_text(kTokenLength, kHexDigits);
  record.created_ms = record.updated_ms = unix_time_ms();
  STASIS_TRY(agent_.check(kAgentPatience));

  STASIS_ASSIGN(const auto guard, active_.begin(record.id, Activity::kChange));
  STASIS_ASSIGN(std::optional<CreateOutcome> known, enter(record, key));
  if (known) return std::move(*known);
  auto reply = agent_.create_sandbox(agent_request(record, request, source));
  if (!reply) return fail(create_failed(record, std::move(reply).error(), key.has_value()));
  STASIS_ASSIGN(SandboxRecord sandbox, started(record, State::kStarting, *reply, ""));
  spdlog::info("sandbox {}: created from '{}' in {:.0f} ms", sandbox.id, sandbox.template_name,
               static_cast<double>(reply->times().total_us()) / 1000);
  return CreateOutcome{std::move(sandbox), false, false};
}

}  // namespace stasis::server
