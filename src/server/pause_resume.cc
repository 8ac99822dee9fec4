// Freezing a sandbox and bringing it back, from its last pause or from an earlier snapshot of it.
#include "base/log.h"
#include "base/uuid.h"
#include "server/operations.h"
#include "server/snapshot_names.h"

namespace stasis::server {
namespace {

pb::ResumeSandboxRequest agent_request(const SandboxRecord& record, const std::string& snapshot_id,
                                       const RestoreOptions& options) {
  pb::ResumeSandboxRequest request;
  request.set_sandbox_id(record.id);
  request.set_snapshot_id(snapshot_id);
  request.set_timeout_sec(record.timeout_sec);
  for (const auto& [name, value] : record.env.items()) (*request.mutable_env())[name] = value.get<std::string>();
  request.set_access_token(record.access_token);
  request.set_hostname(record.id);
  request.set_restore(options.way);
  request.set_load_mib_per_s(options.load_mib_per_s);
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
                                         const RestoreOptions& options) {
  return restore(id, {timeout_sec, "", "resume", "be resumed", options});
}

// From `how.snapshot_id`, or if that is empty from the sandbox's last pause. The row refers to both until it is known
// which of them counts: after a failure or a crash the sandbox is paused as it was.
Result<SandboxRecord> Operations::restore(const std::string& id, const Restore& how) {
  STASIS_ASSIGN(const SandboxRecord before, store_.read([&](Tables& tables) { return tables.sandboxes.get(id); }));
  if (before.state != State::kPaused) return fail(wrong_state(before, how.wish));
  STASIS_TRY(agent_.check(kAgentPatience));
  STASIS_ASSIGN(const auto guard, active_.begin(id, Activity::kChange));
  STASIS_ASSIGN(SandboxRecord record, claim(store_, id, State::kPaused, State::kResuming, how.wish,
                                            {{"pending_snapshot_id", how.snapshot_id}}));
  if (how.timeout_sec) record.timeout_sec = *how.timeout_sec;
  record.deadline_ms = deadline_after(record.timeout_sec);  // a life begins anew
  const std::string from = how.snapshot_id.empty() ? record.snapshot_id : how.snapshot_id;
  const auto reply = agent_.resume_sandbox(agent_request(record, from, how.options));
  if (!reply) {
    Error error = reply.error();
    error.message = std::string(how.operation) + " failed: " + error.message;
    settle_failure(record, error, State::kPaused);
    return fail(Error(reply.error()).with_context(std::string(how.operation) + " sandbox " + id));
  }
  STASIS_ASSIGN(SandboxRecord sandbox, started(record, State::kResuming, *reply, from));
  if (from != record.snapshot_id) settler_.collect();
  spdlog::info("sandbox {}: {} in {:.0f} ms", id, how.operation, static_cast<double>(reply->times().total_us()) / 1000);
  return sandbox;
}

// By way of a pause, so that nothing is given up before the snapshot of then has come back whole.
Result<SandboxRecord> Operations::rollback(const std::string& id, const RollbackRequest& request) {
  STASIS_ASSIGN(const SandboxRecord before, store_.read([&](Tables& tables) { return tables.sandboxes.get(id); }));
  STASIS_ASSIGN(const TemplateRecord target, find_snapshot(store_, request.snapshot));
  if (target.sandbox_id != id) {
    return fail(Code::kFailedPrecondition, "'" + target.name + "' was not taken of sandbox " + id,
                "a sandbox goes back to snapshots of its own; from others create a new one (stasis create --template " +
                    target.name + ")");
  }
  if (before.state != State::kPaused) STASIS_TRY(pause(id));
  auto restored = restore(id, {request.timeout_sec, target.snapshot_id, "rollback", "be rolled back", request.restore});
  if (restored) return restored;
  Error error = std::move(restored).error();
  if (error.remedy.empty()) error.remedy = "if it is paused, it is as it was before: resume it, or try again";
  return fail(std::move(error));
}

}  // namespace stasis::server
