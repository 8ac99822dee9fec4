// Freezing a sandbox and bringing it back.
#include "base/log.h"
#include "base/uuid.h"
#include "server/operations.h"

namespace stasis::server {
namespace {

pb::ResumeSandboxRequest agent_request(const SandboxRecord& record, const std::string& restore) {
  pb::ResumeSandboxRequest request;
  request.set_sandbox_id(record.id);
  request.set_snapshot_id(record.snapshot_id);
  request.set_timeout_sec(record.timeout_sec);
  for (const auto& [name, value] : record.env.items()) (*request.mutable_env())[name] = value.get<std::string>();
  request.set_access_token(record.access_token);
  request.set_hostname(record.id);
  request.set_restore(restore);
  return request;
}

// One sandbox from one state to the next, by compare-and-set: the row as it is now, or why not.
Result<SandboxRecord> claim(Store& store, const std::string& id, State from, State to, std::string_view wish,
                            std::vector<std::pair<const char*, Value>> columns) {
  return store.write([&](Tables& tables) -> Result<SandboxRecord> {
    STASIS_ASSIGN(const bool won, tables.sandboxes.change({id, from, {}, to, "", std::move(columns)}));
    STASIS_ASSIGN(SandboxRecord now, tables.sandboxes.get(id));
    if (!won) return fail(wrong_state(now, wish));
    return now;
  });
}

}  // namespace

Result<SandboxRecord> Operations::pause(const std::string& id) {
  STASIS_TRY(running(id));  // so that a wrong id or state is told without an agent
  STASIS_TRY(agent_.check(kAgentPatience));
  STASIS_ASSIGN(const auto guard, active_.begin(id, Activity::kChange));
  // The id is written down first: after a crash it is looked for at the host.
  STASIS_ASSIGN(const SandboxRecord record, claim(store_, id, State::kRunning, State::kPausing, "be paused",
                                                  {{"pending_snapshot_id", Uuid::random().text()}}));
  pb::PauseSandboxRequest request;
  request.set_sandbox_id(id);
  request.set_snapshot_id(record.pending_snapshot_id);
  const auto taken = agent_.pause_sandbox(request);
  if (!taken) {
    Error error = taken.error();
    error.message = "pause failed: " + error.message;
    settle_failure(record, error, State::kRunning);
    return fail(Error(taken.error()).with_context("pause sandbox " + id));
  }
  STASIS_ASSIGN(const bool won, store_.write([&](Tables& tables) -> Result<bool> {
    STASIS_ASSIGN(const bool changed, tables.sandboxes.change({id,
                                                               State::kPausing,
                                                               record.epoch,
                                                               State::kPaused,
                                                               "",
                                                               {{"snapshot_id", record.pending_snapshot_id},
                                                                {"pending_snapshot_id", ""},
                                                                {"deadline_ms", int64_t{0}},
                                                                {"address", ""},
                                                                {"last_snapshot", capture_json(*taken).dump()}}}));
    // Only now may the pause before go; if the race was lost, what this one wrote goes.
    STASIS_TRY(tables.orphans.release(changed ? record.snapshot_id : record.pending_snapshot_id));
    return changed;
  }));
  settler_.collect();
  if (!won) return fail(Code::kAborted, "sandbox " + id + " was destroyed while it was being paused");
  spdlog::info("sandbox {}: paused, {} bytes stored in {:.0f} ms", id, taken->stored_bytes(),
               static_cast<double>(taken->total_us()) / 1000);
  return store_.read([&](Tables& tables) { return tables.sandboxes.get(id); });
}

Result<SandboxRecord> Operations::resume(const std::string& id, std::optional<uint32_t> timeout_sec,
                                         const std::string& restore) {
  STASIS_ASSIGN(const SandboxRecord before, store_.read([&](Tables& tables) { return tables.sandboxes.get(id); }));
  if (before.state != State::kPaused) return fail(wrong_state(before, "be resumed"));
  STASIS_TRY(agent_.check(kAgentPatience));
  STASIS_ASSIGN(const auto guard, active_.begin(id, Activity::kChange));
  STASIS_ASSIGN(SandboxRecord record, claim(store_, id, State::kPaused, State::kResuming, "be resumed", {}));
  if (timeout_sec) record.timeout_sec = *timeout_sec;
  record.deadline_ms = deadline_after(record.timeout_sec);  // a life begins anew
  const auto reply = agent_.resume_sandbox(agent_request(record, restore));
  if (!reply) {
    Error error = reply.error();
    error.message = "resume failed: " + error.message;
    settle_failure(record, error, State::kPaused);
    return fail(Error(reply.error()).with_context("resume sandbox " + id));
  }
  STASIS_ASSIGN(SandboxRecord sandbox, started(record, State::kResuming, *reply));
  spdlog::info("sandbox {}: resumed in {:.0f} ms", id, static_cast<double>(reply->times().total_us()) / 1000);
  return sandbox;
}

}  // namespace stasis::server
