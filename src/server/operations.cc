#include "server/operations.h"

#include "base/clock.h"
#include "base/log.h"

namespace stasis::server {
namespace {

Json generation_json(const pb::GenerationStats& stats) {
  return {{"generation", stats.generation()},
          {"compared_bytes", stats.compared_bytes()},
          {"stored_bytes", stats.stored_bytes()},
          {"zeroed_bytes", stats.zeroed_bytes()}};
}

Json times_json(const pb::StartTimes& times) {
  return {{"vmm_ready_ms", static_cast<double>(times.vmm_ready_us()) / 1000},
          {"daemon_answered_ms", static_cast<double>(times.daemon_answered_us()) / 1000},
          {"total_ms", static_cast<double>(times.total_us()) / 1000}};
}

Json restore_json(const pb::SandboxStarted& reply) {
  if (!reply.has_restore()) return {};
  const pb::RestoreStats& stats = reply.restore();
  return {{"method", stats.method()},
          {"reason", stats.reason()},
          {"spare", stats.spare()},
          {"mapped_bytes", stats.mapped_bytes()},
          {"resident_pages", stats.resident_pages()},
          {"total_pages", stats.total_pages()},
          {"pages_by_fault", stats.pages_by_fault()},
          {"pages_prefetched", stats.pages_prefetched()},
          {"pages_around", stats.pages_around()},
          {"write_faults", stats.write_faults()},
          {"fault_p50_us", stats.fault_p50_us()},
          {"fault_p99_us", stats.fault_p99_us()},
          {"pages_zero", stats.pages_zero()},
          {"faults", stats.faults()}};
}

std::string remedy_for(State state) {
  switch (state) {
    case State::kPaused:
      return "resume it first";
    case State::kStopped:
      return "it has ended: create another one";
    case State::kError:
      return "its reason says what happened; delete it and create another one";
    case State::kRunning:
      return "pause it first";
    default:
      return "try again when that is done";
  }
}

}  // namespace

bool valid_name(std::string_view name) {
  const auto plain = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); };
  if (name.empty() || name.size() > 63 || !plain(name.front()) || name.find("..") != std::string_view::npos)
    return false;
  for (const char c : name) {
    if (!plain(c) && c != '.' && c != '_' && c != '-') return false;
  }
  return true;
}

Error wrong_state(const SandboxRecord& sandbox, std::string_view wish) {
  const Code code = under_way(sandbox.state) ? Code::kAborted : Code::kFailedPrecondition;
  std::string message = "sandbox " + sandbox.id + " is " + std::string(state_name(sandbox.state));
  if (!sandbox.reason.empty()) message += " (" + sandbox.reason + ")";
  return {code, message + ": it cannot " + std::string(wish), remedy_for(sandbox.state)};
}

int64_t deadline_after(uint32_t timeout_sec) {
  return timeout_sec == 0 ? 0 : unix_time_ms() + int64_t{timeout_sec} * 1000;
}

Json live_json(const pb::LiveStats& live) {
  Json object{{"rounds", live.rounds()}, {"last_round_bytes", live.last_round_bytes()}};
  if (!live.reason().empty()) object["reason"] = live.reason();
  return object;
}

Json capture_json(const pb::SnapshotTaken& taken) {
  Json object{{"snapshot_id", taken.snapshot_id()},
              {"stored_bytes", taken.stored_bytes()},
              {"stopped_ms", static_cast<double>(taken.stopped_us()) / 1000},
              {"total_ms", static_cast<double>(taken.total_us()) / 1000},
              {"memory", generation_json(taken.memory())},
              {"disk", generation_json(taken.disk())}};
  if (taken.has_live()) object["live"] = live_json(taken.live());
  return object;
}

Result<SandboxRecord> Operations::running(const std::string& id) {
  STASIS_ASSIGN(SandboxRecord sandbox, store_.read([&](Tables& tables) { return tables.sandboxes.get(id); }));
  if (sandbox.state != State::kRunning) return fail(wrong_state(sandbox, "do that"));
  return sandbox;
}

Result<SandboxRecord> Operations::started(const SandboxRecord& record, State from, const pb::SandboxStarted& reply,
                                          const std::string& snapshot_id) {
  STASIS_ASSIGN(const bool won, store_.write([&](Tables& tables) -> Result<bool> {
    STASIS_ASSIGN(const bool changed,
                  tables.sandboxes.change({record.id,
                                           from,
                                           record.epoch,
                                           State::kRunning,
                                           "",
                                           {{"vcpus", int64_t{reply.vcpus()}},
                                            {"memory_mb", int64_t{reply.memory_mb()}},
                                            {"disk_mb", static_cast<int64_t>(reply.disk_bytes() >> 20)},
                                            {"timeout_sec", int64_t{record.timeout_sec}},
                                            {"deadline_ms", record.deadline_ms},
                                            {"snapshot_id", snapshot_id},
                                            {"pending_snapshot_id", ""},
                                            {"vmm", reply.vmm()},
                                            {"accelerator", reply.accelerator()},
                                            {"address", reply.address()},
                                            {"times", times_json(reply.times()).dump()},
                                            {"restore", restore_json(reply).dump()}}}));
    if (changed && snapshot_id != record.snapshot_id) STASIS_TRY(tables.orphans.release(record.snapshot_id));
    return changed;
  }));
  if (!won) {
    end_on_host(record.id);  // whoever took the row away has asked for its end, perhaps before the host knew of it
    return fail(Code::kAborted,
                "sandbox " + record.id + " was destroyed while it was " + std::string(state_name(from)));
  }
  return store_.read([&](Tables& tables) { return tables.sandboxes.get(record.id); });
}

void Operations::settle_failure(const SandboxRecord& record, const Error& error, State fallback) {
  auto view = settler_.look();
  if (view) {
    const Status settled = settler_.settle(record, *view, error.message);
    if (!settled) spdlog::warn("sandbox {}: {}", record.id, settled.error().message);
  }
  const auto now = store_.read([&](Tables& tables) { return tables.sandboxes.find(record.id); });
  const bool open = now && *now && (*now)->epoch == record.epoch && (*now)->state == record.state;
  if (open && !outcome_unknown(error)) {
    const auto changed = store_.write([&](Tables& tables) -> Result<bool> {
      STASIS_TRY(tables.orphans.release(record.pending_snapshot_id));
      return tables.sandboxes.change(
          {record.id, record.state, record.epoch, fallback, error.message, {{"pending_snapshot_id", ""}}});
    });
    if (!changed) spdlog::warn("sandbox {}: {}", record.id, changed.error().message);
  }
  settler_.collect();
  wake_();
}

void Operations::end_on_host(const std::string& id) {
  const auto reply = agent_.destroy_sandbox(destroy_request(id, kReasonDestroyed));
  if (!reply) spdlog::warn("sandbox {} could not be ended, the reconciler will: {}", id, reply.error().message);
}

void Operations::drop_snapshot(const std::string& snapshot_id) {
  const Status released = store_.write([&](Tables& tables) { return tables.orphans.release(snapshot_id); });
  if (!released) spdlog::warn("snapshot {}: {}", snapshot_id, released.error().message);
  settler_.collect();
}

Status Operations::destroy(const std::string& id) {
  STASIS_ASSIGN(const auto guard, active_.begin(id, Activity::kDestroy));
  STASIS_ASSIGN(const SandboxRecord record, store_.write([&](Tables& tables) -> Result<SandboxRecord> {
    STASIS_ASSIGN(const SandboxRecord now, tables.sandboxes.get(id));
    if (now.state == State::kStopped || now.state == State::kStopping) return now;
    STASIS_TRY(tables.sandboxes.change({id, now.state, now.epoch, State::kStopping, kReasonDestroyed, {}}));
    return tables.sandboxes.get(id);
  }));
  if (record.state == State::kStopped) return {};
  if (Status ended = settler_.end(record); !ended) {
    wake_();
    Error error = std::move(ended).error().with_context("destroy sandbox " + id);
    if (outcome_unknown(error))
      error.remedy = "it is marked as stopping and will be ended as soon as the host agent answers";
    return fail(std::move(error));
  }
  settler_.collect();
  spdlog::info("sandbox {}: destroyed", id);
  return {};
}

Result<pb::PingSandboxReply> Operations::ping(const std::string& id, std::optional<uint32_t> timeout_sec) {
  STASIS_TRY(running(id));
  pb::PingSandboxRequest request;
  request.set_sandbox_id(id);
  request.set_timeout_sec(timeout_sec.value_or(0));
  auto reply = agent_.ping_sandbox(request);
  if (!reply) {
    wake_();
    return fail(std::move(reply).error().with_context("ping sandbox " + id));
  }
  if (timeout_sec) {
    STASIS_TRY(store_.write(
        [&](Tables& tables) { return tables.sandboxes.set_deadline(id, *timeout_sec, reply->deadline_unix_ms()); }));
  }
  return reply;
}

}  // namespace stasis::server
