#include "cli/keeper.h"

#include <algorithm>
#include <csignal>
#include <ranges>

#include "base/log.h"
#include "base/reaper.h"
#include "base/signals.h"

namespace stasis::cli {
namespace {

constexpr std::chrono::milliseconds kFirstBackoff(100);
constexpr std::chrono::milliseconds kLongestBackoff(10'000);
constexpr std::chrono::seconds kPeace(30);

}  // namespace

Keeper::Keeper(UniqueFd signals, std::vector<Service> services) : signals_(std::move(signals)) {
  for (Service& service : services) kept_.push_back({.service = std::move(service), .process = std::nullopt});
}

Result<Keeper> Keeper::create(std::vector<Service> services) {
  STASIS_TRY(become_subreaper());
  STASIS_ASSIGN(UniqueFd signals, take_signals({SIGCHLD, SIGTERM, SIGINT, SIGHUP}));
  return Keeper(std::move(signals), std::move(services));
}

Status Keeper::start_one(Kept& kept) {
  SpawnOptions options;
  options.argv = kept.service.argv;
  options.stderr_fd = 2;
  options.new_session = true;  // Ctrl-C in a terminal is for this process, which then stops them in order
  options.die_with_parent = true;
  STASIS_ASSIGN(Process process, spawn(options));
  kept.process = std::move(process);
  kept.started = Deadline::Clock::now();
  return {};
}

Status Keeper::start() {
  for (Kept& kept : kept_) {
    STASIS_TRY_CONTEXT(start_one(kept), "start the " + kept.service.name);
  }
  return {};
}

// Notes a service that has ended, and when to start it again.
void Keeper::collect(Kept& kept) {
  if (!kept.process) return;
  const auto waited = kept.process->wait(Deadline::after(std::chrono::milliseconds(0)));
  if (!waited || !*waited) return;
  kept.ended = (*waited)->text();
  kept.process.reset();
  const auto now = Deadline::Clock::now();
  if (now - kept.started >= kPeace) kept.backoff = {};
  kept.backoff = std::clamp(kept.backoff * 2, kFirstBackoff, kLongestBackoff);
  kept.restart_at = now + kept.backoff;
  spdlog::warn("the {} ended ({}); sandboxes go on; starting it again in {} ms", kept.service.name, kept.ended,
               kept.backoff.count());
}

void Keeper::restart_what_is_due() {
  for (Kept& kept : kept_) {
    if (kept.process || Deadline::Clock::now() < kept.restart_at) continue;
    if (const Status started = start_one(kept); !started) {
      kept.backoff = std::clamp(kept.backoff * 2, kFirstBackoff, kLongestBackoff);
      kept.restart_at = Deadline::Clock::now() + kept.backoff;
      spdlog::error("cannot start the {}: {}", kept.service.name, started.error().message);
    } else {
      spdlog::info("the {} runs again, pid {}", kept.service.name, kept.process->pid());
    }
  }
}

Deadline Keeper::until_next_restart(Deadline deadline) const {
  auto at = deadline.at();
  for (const Kept& kept : kept_) {
    if (!kept.process) at = std::min(at, kept.restart_at);
  }
  if (at == Deadline::Clock::time_point::max()) return Deadline::never();
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(at - Deadline::Clock::now());
  return Deadline::after(std::max(left, std::chrono::milliseconds(0)));
}

Result<bool> Keeper::step(Deadline deadline) {
  STASIS_ASSIGN(const bool signalled, wait_readable(signals_.get(), until_next_restart(deadline)));
  bool stop = false;
  if (signalled) {
    while (const int number = read_signal(signals_.get())) stop = stop || number != SIGCHLD;
    std::vector<pid_t> own;
    for (Kept& kept : kept_) {
      collect(kept);
      if (kept.process) own.push_back(kept.process->pid());
    }
    for (const pid_t pid : reap_orphans(own)) spdlog::debug("an orphan ended, pid {}", pid);
  }
  if (!stop) restart_what_is_due();
  return stop;
}

const Keeper::Kept* Keeper::find(const std::string& name) const {
  const auto found = std::ranges::find_if(kept_, [&](const Kept& kept) { return kept.service.name == name; });
  return found == kept_.end() ? nullptr : &*found;
}

pid_t Keeper::pid_of(const std::string& name) const {
  const Kept* kept = find(name);
  return kept != nullptr && kept->process ? kept->process->pid() : -1;
}

std::string Keeper::end_of(const std::string& name) const {
  const Kept* kept = find(name);
  return kept != nullptr ? kept->ended : "";
}

void Keeper::set_argv(const std::string& name, const std::vector<std::string>& argv) {
  for (Kept& kept : kept_) {
    if (kept.service.name == name) kept.service.argv = argv;
  }
}

void Keeper::stop(std::chrono::milliseconds patience) {
  for (Kept& kept : std::views::reverse(kept_)) {
    if (!kept.process) continue;
    kept.process->signal(SIGTERM);
    const auto ended = kept.process->wait(Deadline::after(patience));
    if (!ended || !*ended) spdlog::warn("the {} did not stop in time; ending it", kept.service.name);
    kept.process.reset();  // kills what is left
  }
  reap_orphans({});
}

}  // namespace stasis::cli
