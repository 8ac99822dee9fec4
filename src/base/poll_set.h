// Waiting for the same descriptors again and again, by epoll(7): the kernel keeps the list, which poll(2) (poll.h)
// gives it anew each time.
#pragma once

#include "base/poll.h"

namespace stasis {

// Thread-safe.
class PollSet {
 public:
  // At most kMaxPolled descriptors, which stay open as long as it lives; none of them negative, or twice in it.
  static Result<PollSet> of(std::span<const int> fds);
  // As wait_any() of these descriptors.
  Result<std::bitset<kMaxPolled>> wait(Deadline deadline) const;

 private:
  explicit PollSet(UniqueFd epoll) : epoll_(std::move(epoll)) {}
  UniqueFd epoll_;
};

}  // namespace stasis
