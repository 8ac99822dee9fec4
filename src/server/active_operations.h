// Which operations this process runs on which sandbox. The database decides who may change a state; this says whether
// somebody here will finish what a row says is under way (if not, the reconciler settles it), and keeps apart what
// changes no state at first: a snapshot of a running sandbox, and settling, from everything but a destroy. Thread-safe.
#pragma once

#include <map>
#include <mutex>
#include <string>
#include <utility>

#include "base/result.h"

namespace stasis::server {

enum class Activity { kChange, kExclusive, kDestroy };

class ActiveOperations {
 public:
  // Ends the operation when it goes.
  class Guard {
   public:
    Guard(Guard&& other) noexcept
        : owner_(std::exchange(other.owner_, nullptr)), id_(std::move(other.id_)), activity_(other.activity_) {}
    Guard& operator=(Guard&&) = delete;
    ~Guard() {
      if (owner_ != nullptr) owner_->end(id_, activity_);
    }

   private:
    friend class ActiveOperations;
    Guard(ActiveOperations* owner, std::string id, Activity activity)
        : owner_(owner), id_(std::move(id)), activity_(activity) {}
    ActiveOperations* owner_;
    std::string id_;
    Activity activity_;
  };

  // kAborted for a change during something exclusive, and something exclusive during anything. A destroy always may.
  Result<Guard> begin(const std::string& id, Activity activity);
  bool any(const std::string& id) const;

 private:
  struct Counts {
    int exclusive = 0;
    int others = 0;
  };
  void end(const std::string& id, Activity activity);

  mutable std::mutex mutex_;
  std::map<std::string, Counts> active_;
};

}  // namespace stasis::server
