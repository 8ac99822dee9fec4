#include "server/decide.h"

#include <string_view>

namespace stasis::server {
namespace {

constexpr int64_t kDeadlineSlackMs = 1000;  // between the host's clock of a deadline and ours

Transition change(const SandboxRecord& record, State to, std::string reason) {
  return {record.id, record.state, record.epoch, to, std::move(reason), {}};
}

Decision to_running(const SandboxRecord& record, const Observation& seen) {
  Decision decision{change(record, State::kRunning, seen.failure)};
  decision.transition->columns = columns_from_host(*seen.info);
  decision.transition->columns.emplace_back("pending_snapshot_id", "");
  // What a pause wrote that then let the guest run on is of the past.
  decision.released = {record.pending_snapshot_id};
  return decision;
}

Decision to_stopped(const SandboxRecord& record, std::string reason) {
  Decision decision{change(record, State::kStopped, std::move(reason))};
  decision.transition->columns = {{"snapshot_id", ""}, {"pending_snapshot_id", ""}, {"address", ""}};
  decision.released = {record.snapshot_id, record.pending_snapshot_id};
  return decision;
}

Decision to_error(const SandboxRecord& record, std::string reason) {
  Decision decision{change(record, State::kError, std::move(reason))};
  decision.transition->columns = {{"pending_snapshot_id", ""}, {"address", ""}};
  decision.released = {record.pending_snapshot_id};
  return decision;
}

Decision to_paused(const SandboxRecord& record, const std::string& snapshot_id, std::string reason) {
  Decision decision{change(record, State::kPaused, std::move(reason))};
  decision.transition->columns = {
      {"snapshot_id", snapshot_id}, {"pending_snapshot_id", ""}, {"deadline_ms", int64_t{0}}, {"address", ""}};
  for (const std::string& id : {record.snapshot_id, record.pending_snapshot_id}) {
    if (id != snapshot_id) decision.released.push_back(id);
  }
  return decision;
}

// Why a sandbox that should run does not: what the host says, what the failed operation said, or that nobody knows.
std::string cause(const Observation& seen) {
  if (seen.info != nullptr && !seen.info->reason().empty()) return seen.info->reason();
  return seen.failure.empty() ? kReasonLost : seen.failure;
}

// The same for an operation that was under way: `failure` says which one it was, the others do not.
std::string interrupted(std::string_view operation, const Observation& seen) {
  if (seen.info != nullptr && !seen.info->reason().empty()) return std::string(operation) + seen.info->reason();
  return seen.failure.empty() ? std::string(operation) + "it was interrupted" : seen.failure;
}

bool ended_by_deadline(const SandboxRecord& record, const Observation& seen) {
  if (seen.info != nullptr) return std::string_view(seen.info->reason()).starts_with(kReasonTimeout);
  return record.deadline_ms != 0 && seen.now_ms + kDeadlineSlackMs >= record.deadline_ms;
}

// The sandbox does not run at the host (absent or dead there), in a state where it should or might.
Decision gone(const SandboxRecord& record, const Observation& seen) {
  switch (record.state) {
    case State::kPending:
    case State::kStarting:
      return to_stopped(record, interrupted("create failed: ", seen));
    case State::kPausing:
      if (seen.pending_exists) return to_paused(record, record.pending_snapshot_id, "");
      break;
    case State::kResuming:
      if (seen.snapshot_exists) return to_paused(record, record.snapshot_id, interrupted("resume failed: ", seen));
      break;
    default:
      break;
  }
  return ended_by_deadline(record, seen) ? to_stopped(record, kReasonTimeout) : to_error(record, cause(seen));
}

bool should_exist(State state) { return state == State::kRunning || (under_way(state) && state != State::kStopping); }

}  // namespace

HostState host_state(const pb::SandboxInfo* info) {
  if (info == nullptr) return HostState::kAbsent;
  if (info->state() == "running") return HostState::kRunning;
  return info->state() == "dead" ? HostState::kDead : HostState::kBusy;
}

bool unwanted(const SandboxRecord& record) {
  return record.state == State::kStopped && (record.reason == kReasonDestroyed || record.started_ms == 0);
}

bool needs_snapshots(const SandboxRecord& record, HostState state) {
  return (record.state == State::kPausing || record.state == State::kResuming) &&
         (state == HostState::kAbsent || state == HostState::kDead);
}

Decision decide(const SandboxRecord& record, const Observation& seen) {
  switch (host_state(seen.info)) {
    case HostState::kBusy:
      return {};
    case HostState::kRunning:
      if (record.state == State::kRunning || record.state == State::kStopping) return {};
      if (unwanted(record)) return {};
      return to_running(record, seen);
    case HostState::kDead: {
      Decision decision = should_exist(record.state) ? gone(record, seen) : Decision{};
      decision.destroy_on_host = true;
      return decision;
    }
    case HostState::kAbsent:
      return should_exist(record.state) ? gone(record, seen) : Decision{};
  }
  return {};
}

std::vector<std::pair<const char*, Value>> columns_from_host(const pb::SandboxInfo& info) {
  return {{"vcpus", int64_t{info.vcpus()}},
          {"memory_mb", int64_t{info.memory_mb()}},
          {"disk_mb", static_cast<int64_t>(info.disk_bytes() >> 20)},
          {"deadline_ms", info.deadline_unix_ms()}};
}

}  // namespace stasis::server
