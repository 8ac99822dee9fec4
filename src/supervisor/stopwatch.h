// Microseconds since it was made.
#pragma once

#include <chrono>
#include <cstdint>

namespace stasis::supervisor {

class Stopwatch {
 public:
  uint64_t microseconds() const {
    const auto elapsed = std::chrono::steady_clock::now() - start_;
    return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(elapsed).count());
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace stasis::supervisor
