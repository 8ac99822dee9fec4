#include "base/rate_limit.h"

#include <algorithm>
#include <thread>

#include "base/poll.h"

namespace stasis {

Status RateLimit::take(uint64_t bytes) {
  const Clock::time_point now = Clock::now();
  const Clock::time_point begin = std::max(next_, now);
  if (cancel_fd_ >= 0) {
    const auto left = std::chrono::ceil<Milliseconds>(begin - now);
    STASIS_ASSIGN(const bool cancelled, wait_readable(cancel_fd_, Deadline::after(left)));
    if (cancelled) return fail(Code::kCancelled, "it was cancelled");
  } else {
    std::this_thread::sleep_until(begin);
  }
  took(bytes, begin);
  return {};
}

void RateLimit::took(uint64_t bytes, Clock::time_point now) {
  next_ = std::max(next_, now);  // time that was not used is not saved up
  if (bytes_per_second_ == 0) return;
  next_ += std::chrono::duration_cast<Clock::duration>(
      std::chrono::duration<double>(static_cast<double>(bytes) / static_cast<double>(bytes_per_second_)));
}

}  // namespace stasis
