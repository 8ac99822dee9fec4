#include "base/rate_limit.h"

#include <algorithm>
#include <thread>

#include "base/poll.h"

namespace stasis {

Status RateLimit::take(uint64_t bytes) {
  const Clock::time_point now = Clock::now();
  next_ = std::max(next_, now);  // time that was not used is not saved up
  if (cancel_fd_ >= 0) {
    const auto left = std::chrono::ceil<Milliseconds>(next_ - now);
    STASIS_ASSIGN(const bool cancelled, wait_readable(cancel_fd_, Deadline::after(left)));
    if (cancelled) return fail(Code::kCancelled, "it was cancelled");
  } else {
    std::this_thread::sleep_until(next_);
  }
  if (bytes_per_second_ != 0) {
    next_ += std::chrono::duration_cast<Clock::duration>(
        std::chrono::duration<double>(static_cast<double>(bytes) / static_cast<double>(bytes_per_second_)));
  }
  return {};
}

}  // namespace stasis
