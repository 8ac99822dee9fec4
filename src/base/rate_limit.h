// So many bytes a second, for work that must leave the device to others. One thread, which waits in take() or looks at
// next() while it does other things; another may end take() through the cancel descriptor.
#pragma once

#include <chrono>
#include <cstdint>

#include "base/result.h"

namespace stasis {

class RateLimit {
 public:
  // `bytes_per_second` 0: no limit. `cancel_fd`: once it is readable every take() fails; -1: never.
  RateLimit() = default;
  explicit RateLimit(uint64_t bytes_per_second, int cancel_fd = -1)
      : bytes_per_second_(bytes_per_second), cancel_fd_(cancel_fd) {}

  // Waits until what was taken before has had its time, then takes `bytes`. kCancelled at once when cancelled.
  Status take(uint64_t bytes);

  using Clock = std::chrono::steady_clock;
  // When what was taken before has had its time.
  Clock::time_point next() const { return next_; }
  void took(uint64_t bytes, Clock::time_point now);

 private:
  uint64_t bytes_per_second_ = 0;
  int cancel_fd_ = -1;
  Clock::time_point next_{};
};

}  // namespace stasis
