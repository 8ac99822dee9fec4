#include "server/reconciler.h"

#include <set>

#include "base/clock.h"
#include "base/log.h"
#include "server/retention.h"

namespace stasis::server {
namespace {

using std::chrono::steady_clock;

constexpr int64_t kKeepStoppedMs = 3'600'000;
constexpr std::chrono::milliseconds kRetry{500};  // while the agent is away
constexpr int64_t kDeadlineToleranceMs = 500;

// Nothing to do, seen without any lock: the common case.
bool in_line(const SandboxRecord& record, HostState host) {
  switch (record.state) {
    case State::kRunning:
      return host == HostState::kRunning;
    case State::kPaused:
    case State::kStopped:
    case State::kError:
      return host == HostState::kAbsent;
    default:
      return false;
  }
}

}  // namespace

Status Reconciler::pass() {
  const std::lock_guard lock(pass_mutex_);
  // The database first: a sandbox that starts in between is then unknown for one pass, not lost.
  STASIS_ASSIGN(const std::vector<SandboxRecord> rows,
                store_.read([](Tables& tables) { return tables.sandboxes.all(); }));
  STASIS_ASSIGN(HostView view, settler_.look());
  for (const SandboxRecord& record : rows) {
    const Status done = reconcile(record, view);
    if (!done) spdlog::warn("sandbox {}: {}", record.id, done.error().message);
  }
  end_unknown(rows, view);
  STASIS_ASSIGN(const auto let_go, apply_retention(store_, unix_time_ms()));
  for (const std::string& name : let_go) spdlog::info("snapshot '{}': deleted by its retention policy", name);
  settler_.collect();
  STASIS_TRY(settler_.sync_images());
  return store_.write([](Tables& tables) { return tables.sandboxes.purge_stopped(unix_time_ms() - kKeepStoppedMs); });
}

Status Reconciler::reconcile(const SandboxRecord& record, HostView& view) {
  const pb::SandboxInfo* info = view.find(record.id);
  if (in_line(record, host_state(info))) {
    return record.state == State::kRunning ? sync_deadline(record, *info) : Status();
  }
  return settle_alone(record, view);
}

Status Reconciler::settle_alone(const SandboxRecord& record, HostView& view) {
  const auto guard = active_.begin(record.id, Activity::kExclusive);
  if (!guard) return {};  // whoever is at it will write what comes of it
  STASIS_ASSIGN(const std::optional<SandboxRecord> now,
                store_.read([&](Tables& tables) { return tables.sandboxes.find(record.id); }));
  if (!now || now->epoch != record.epoch) return {};  // changed since the host was asked
  if (now->state == State::kStopping) return settler_.end(*now);
  return settler_.settle(*now, view, "");
}

Status Reconciler::sync_deadline(const SandboxRecord& record, const pb::SandboxInfo& info) {
  const int64_t difference = record.deadline_ms - info.deadline_unix_ms();
  if (difference <= kDeadlineToleranceMs && difference >= -kDeadlineToleranceMs) return {};
  return store_.write([&](Tables& tables) -> Status {
    STASIS_ASSIGN(const std::optional<SandboxRecord> now, tables.sandboxes.find(record.id));
    if (!now || now->epoch != record.epoch || now->deadline_ms != record.deadline_ms) return {};
    return tables.sandboxes.set_deadline(record.id, now->timeout_sec, info.deadline_unix_ms());
  });
}

void Reconciler::end_unknown(const std::vector<SandboxRecord>& known, const HostView& view) {
  std::set<std::string> ids;
  for (const SandboxRecord& record : known) {
    if (!unwanted(record)) ids.insert(record.id);
  }
  std::map<std::string, Sighting> seen;
  const auto now = steady_clock::now();
  for (const auto& [id, info] : view.sandboxes) {
    if (ids.contains(id)) continue;
    const auto before = unknown_.find(id);
    Sighting sighting = before == unknown_.end() ? Sighting{now, 0} : before->second;
    ++sighting.count;
    if (sighting.count >= 2 && now - sighting.first >= options_.unknown_grace) end_if_still_unknown(id);
    seen[id] = sighting;
  }
  unknown_ = std::move(seen);  // those that were not seen this time start anew
}

void Reconciler::end_if_still_unknown(const std::string& id) {
  const auto record = store_.read([&](Tables& tables) { return tables.sandboxes.find(id); });
  if (!record || (*record && !unwanted(**record)) || active_.any(id)) return;
  spdlog::warn("sandbox {}: the host has it and the database does not: ending it", id);
  const auto reply = agent_.destroy_sandbox(destroy_request(id, "unknown to the control plane"));
  if (!reply) spdlog::warn("sandbox {}: {}", id, reply.error().message);
}

void Reconciler::start(bool reachable) {
  thread_ = std::thread([this, reachable] { loop(reachable); });
}

void Reconciler::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Reconciler::wake() {
  {
    const std::lock_guard lock(mutex_);
    awake_ = true;
  }
  changed_.notify_all();
}

void Reconciler::loop(bool reachable) {
  std::unique_lock lock(mutex_);
  while (true) {
    const auto pause = reachable ? options_.interval : std::min(kRetry, options_.interval);
    changed_.wait_for(lock, pause, [this] { return awake_ || stopping_; });
    if (stopping_) return;
    awake_ = false;
    lock.unlock();
    const Status done = pass();
    if (reachable && !done) spdlog::warn("reconciler: {}", done.error().message);
    if (!reachable && done) spdlog::info("reconciler: the host agent answers");
    reachable = done.has_value();
    lock.lock();
  }
}

}  // namespace stasis::server
