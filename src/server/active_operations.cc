#include "server/active_operations.h"

namespace stasis::server {

Result<ActiveOperations::Guard> ActiveOperations::begin(const std::string& id, Activity activity) {
  const std::lock_guard lock(mutex_);
  const auto found = active_.find(id);
  const Counts now = found == active_.end() ? Counts{} : found->second;
  if ((activity == Activity::kChange && now.exclusive > 0) ||
      (activity == Activity::kExclusive && now.exclusive + now.others > 0)) {
    return fail(Code::kAborted, "another operation on sandbox " + id + " is under way", "try again when it is done");
  }
  Counts& counts = active_[id];
  ++(activity == Activity::kExclusive ? counts.exclusive : counts.others);
  return Guard(this, id, activity);
}

bool ActiveOperations::any(const std::string& id) const {
  const std::lock_guard lock(mutex_);
  return active_.contains(id);
}

void ActiveOperations::end(const std::string& id, Activity activity) {
  const std::lock_guard lock(mutex_);
  const auto found = active_.find(id);
  Counts& counts = found->second;
  --(activity == Activity::kExclusive ? counts.exclusive : counts.others);
  if (counts.exclusive + counts.others == 0) active_.erase(found);
}

}  // namespace stasis::server
