// What the page servers of a host have done together, since the agent began: those that run, as they were last seen,
// and those that have ended. The sums never go back, and stay small: layers are counted as one. Thread-safe.
#pragma once

#include <map>
#include <mutex>
#include <optional>

#include "supervisor/pager_report.h"

namespace stasis::agent {

struct Sandbox;

class PagerTotals {
 public:
  // From here to ended() a sandbox counts; by its object and not its id, which a resumed one has again.
  void began(const Sandbox* sandbox);
  // Of one that has ended meanwhile: nothing, it has been counted.
  void seen(const Sandbox* sandbox, supervisor::PagerReport report);
  // `last` as the supervisor left it; without, it did what it had done when it was last seen. Its queues are gone.
  void ended(const Sandbox* sandbox, std::optional<supervisor::PagerReport> last);
  supervisor::PagerReport total() const;

 private:
  mutable std::mutex mutex_;
  std::map<const Sandbox*, supervisor::PagerReport> running_;
  supervisor::PagerReport ended_;
};

}  // namespace stasis::agent
