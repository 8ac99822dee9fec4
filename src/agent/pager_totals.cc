#include "agent/pager_totals.h"

namespace stasis::agent {

void PagerTotals::began(const Sandbox* sandbox) {
  const std::lock_guard lock(mutex_);
  running_.emplace(sandbox, supervisor::PagerReport{});
}

void PagerTotals::seen(const Sandbox* sandbox, supervisor::PagerReport report) {
  const std::lock_guard lock(mutex_);
  const auto found = running_.find(sandbox);
  if (found != running_.end()) found->second = std::move(report);
}

void PagerTotals::ended(const Sandbox* sandbox, std::optional<supervisor::PagerReport> last) {
  const std::lock_guard lock(mutex_);
  auto node = running_.extract(sandbox);
  if (!node) return;
  if (!last) last = std::move(node.mapped());
  last->parked = 0;
  last->prefetch_left = 0;
  last->load_left = 0;
  last->fetching = 0;
  add_to(ended_, *last, false);
}

supervisor::PagerReport PagerTotals::total() const {
  const std::lock_guard lock(mutex_);
  supervisor::PagerReport sum = ended_;
  for (const auto& [sandbox, report] : running_) add_to(sum, report, false);
  return sum;
}

}  // namespace stasis::agent
