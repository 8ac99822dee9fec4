// Host: what happens by itself. Sandboxes of a former agent are adopted, supervisors that die are noticed, lives end at
// their deadline, and what nothing needs any more is collected.
#include <algorithm>

#include "agent/host.h"
#include "agent/roots.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"

namespace stasis::agent {
namespace {

constexpr Milliseconds kTick{100};
constexpr Milliseconds kCollectAgain{5'000};
constexpr Milliseconds kDeadVmmDeadline{5'000};
// Between its spawn and its socket a supervisor of a killed agent cannot be found.
constexpr Milliseconds kSocketAppears{500};
constexpr std::chrono::seconds kSettleTogether{3};
constexpr size_t kEndTogether = 16;
constexpr const char* kTimeout = "timeout";

// The caller holds the sandbox's mutex. Nobody reads the layers of what has ended; and the maps that keep them may be
// torn when the host itself went down, which would be an error to every collection.
void mark_dead(Sandbox& sandbox, std::string reason) {
  spdlog::warn("sandbox {}: {}", sandbox.id, reason);
  sandbox.state = SandboxState::kDead;
  sandbox.reason = std::move(reason);
  forget_maps(sandbox.dir);
}

Result<std::unique_ptr<supervisor::Client>> find_supervisor(const Path& dir, bool may_be_starting) {
  const Deadline deadline = Deadline::after(may_be_starting ? kSocketAppears : Milliseconds(0));
  for (;;) {
    auto client = supervisor::Client::connect(dir);
    if (client || deadline.passed()) return client;
    std::this_thread::sleep_for(Milliseconds(10));
  }
}

bool is_due(Sandbox& sandbox) {
  const std::lock_guard lock(sandbox.mutex);
  const int64_t deadline = sandbox.record.deadline_unix_ms;
  return sandbox.state == SandboxState::kRunning && deadline != 0 && unix_time_ms() >= deadline;
}

bool has_died(Sandbox& sandbox) {
  const bool gone = supervisor_gone(sandbox);
  const std::lock_guard lock(sandbox.mutex);
  return gone && sandbox.state == SandboxState::kRunning;
}

}  // namespace

Status Host::adopt_all() {
  STASIS_ASSIGN(const auto names, real_file_system().list(sandboxes_dir()));
  for (const std::string& name : names) {
    if (is_sandbox_id(name)) adopt(name);
  }
  const auto limit = std::chrono::steady_clock::now() + kSettleTogether;
  for (const auto& settling : settling_) settling.wait_until(limit);
  return {};
}

// A directory that a former agent left: its supervisor runs, or has ended on request, or has died.
void Host::adopt(const std::string& id) {
  auto sandbox = std::make_shared<Sandbox>(id, sandboxes_dir() / id);
  sandbox->adopted = true;
  sandbox->info.sandbox_id = id;
  if (auto config = load_config(sandbox->dir)) {
    sandbox->info.base = config->base;
    sandbox->info.shape = config->shape;
    sandbox->info.disk_bytes = config->disk_bytes;
    sandbox->info.vmm = config->vmm;
  }
  if (auto record = load_record(sandbox->dir)) sandbox->record = std::move(*record);
  auto client = find_supervisor(sandbox->dir, !sandbox->record.initialised && !load_exit_record(sandbox->dir));
  if (client) {
    if (auto pidfd = open_pidfd((*client)->pid())) sandbox->supervisor_pidfd = std::move(*pidfd);
    sandbox->client = std::move(*client);
    sandbox->state = SandboxState::kPausing;  // until it answers: nothing else keeps a supervisor from answering
  }
  {
    const std::lock_guard lock(mutex_);
    sandboxes_.emplace(id, sandbox);
    pager_totals_.began(sandbox.get());
  }
  if (!sandbox->client) {
    const std::lock_guard operation(sandbox->operation);
    ended_unseen(sandbox);
    return;
  }
  settling_.push_back(std::async(std::launch::async, [this, sandbox] { settle(sandbox); }));
}

void Host::settle(const SandboxPtr& sandbox) {
  const std::lock_guard operation(sandbox->operation);
  auto info = sandbox->client->state(kSnapshotDeadline);  // in the middle of one it answers when that is done
  {
    const std::lock_guard lock(sandbox->mutex);
    if (sandbox->destroyed || stopping_) return;
    if (info) {
      if (auto pidfd = open_pidfd(info->vmm_pid)) sandbox->vmm_pidfd = std::move(*pidfd);
      sandbox->info = std::move(*info);
    }
    if (info && sandbox->record.initialised) {
      sandbox->state = SandboxState::kRunning;
      spdlog::info("sandbox {}: adopted", sandbox->id);
      return;
    }
  }
  if (info) {
    spdlog::warn("sandbox {}: its start was interrupted; it is ended", sandbox->id);
    take_down(sandbox, "its start was interrupted");
    return;
  }
  end_processes(sandbox, "it does not answer");
  ended_unseen(sandbox);
}

// It has ended while nobody looked: on request, then nothing is left to do; or not, then that is to be told.
void Host::ended_unseen(const SandboxPtr& sandbox) {
  const auto exit = load_exit_record(sandbox->dir);
  const bool timed_out = exit && exit->expected && exit->reason == std::string("stopped: ") + kTimeout;
  const bool expected = exit && exit->expected && !timed_out;
  if (!sandbox->record.initialised || expected) return take_down(sandbox, "");
  const std::lock_guard lock(sandbox->mutex);
  if (sandbox->destroyed) return;
  mark_dead(*sandbox, timed_out ? kTimeout : exit ? exit->reason : "the supervisor died while no agent was there");
}

bool Host::has_unsettled() const {
  const auto sandboxes = all();
  return std::any_of(sandboxes.begin(), sandboxes.end(), [](const SandboxPtr& sandbox) {
    const std::lock_guard lock(sandbox->mutex);
    return sandbox->adopted && sandbox->state != SandboxState::kRunning && sandbox->state != SandboxState::kDead;
  });
}

void Host::watch() {
  Deadline collect_at = Deadline::after(Milliseconds(0));
  bool settled = false;
  for (;;) {
    const auto stopped = wait_readable(stop_.fd(), Deadline::after(kTick));
    if (!stopped || *stopped) return;
    end_who_is_due();
    if (!settled && !has_unsettled()) {
      settled = true;
      warm_bases_->settle();
    }
    if (!collect_wanted_ || !collect_at.passed()) continue;
    (void)collect();
    if (collect_wanted_) collect_at = Deadline::after(kCollectAgain);
  }
}

// Each in a thread of its own: one that does not end (30 s, in the worst case) must not let the others live on.
void Host::end_who_is_due() {
  std::erase_if(endings_, [](const Ending& ending) {
    return ending.done.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
  });
  for (const SandboxPtr& sandbox : all()) {
    if (endings_.size() == kEndTogether) return;
    const auto is_this = [&](const Ending& ending) { return ending.sandbox == sandbox; };
    if (std::any_of(endings_.begin(), endings_.end(), is_this)) continue;
    if (!is_due(*sandbox) && !has_died(*sandbox)) continue;
    endings_.push_back({sandbox, std::async(std::launch::async, [this, sandbox] { end_if_due(sandbox); })});
  }
}

void Host::end_if_due(const SandboxPtr& sandbox) {
  // Taken only when there is something to do: who asks for it meanwhile must not be told that it is busy.
  const std::unique_lock operation(sandbox->operation, std::try_to_lock);
  if (!operation) return;  // whoever holds it sees what happens
  std::string reason;
  if (has_died(*sandbox)) {
    (void)await_end(*sandbox, Deadline::after(kDeadVmmDeadline));
    const auto exit = load_exit_record(sandbox->dir);
    reason = exit ? exit->reason : "supervisor died: " + log_tail(sandbox->dir / supervisor::kSupervisorLog);
  } else if (is_due(*sandbox)) {
    end_processes(sandbox, kTimeout);
    reason = kTimeout;
  } else {
    return;
  }
  const std::lock_guard lock(sandbox->mutex);
  if (!sandbox->destroyed) mark_dead(*sandbox, std::move(reason));
}

}  // namespace stasis::agent
