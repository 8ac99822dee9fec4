// Host: what the page servers of its sandboxes have done.
#include "agent/host.h"

namespace stasis::agent {
namespace {

// A supervisor answers at once, unless it is in the middle of a snapshot.
constexpr Milliseconds kReportDeadline{200};
constexpr Milliseconds kAllReportsDeadline{2'000};
constexpr Milliseconds kTraceDeadline{20'000};

}  // namespace

Result<supervisor::TraceReply> Host::trace(const std::string& id) const {
  STASIS_ASSIGN(const SandboxPtr sandbox, find(id));
  STASIS_ASSIGN(const auto client, supervisor::Client::connect(sandbox->dir));
  return client->trace(kTraceDeadline);
}

supervisor::PagerReport Host::pager_report() {
  const std::lock_guard one_at_a_time(asking_);
  const Deadline deadline = Deadline::after(kAllReportsDeadline);
  for (const SandboxPtr& sandbox : all()) {
    if (deadline.passed()) break;
    const bool runs = [&] {
      const std::lock_guard lock(sandbox->mutex);
      return sandbox->state == SandboxState::kRunning;
    }();
    if (!runs) continue;
    // A connection of its own: the control connection may be busy.
    const auto client = supervisor::Client::connect(sandbox->dir);
    if (!client) continue;
    if (auto report = (*client)->pager(kReportDeadline)) pager_totals_.seen(sandbox.get(), std::move(*report));
  }
  return pager_totals_.total();
}

}  // namespace stasis::agent
