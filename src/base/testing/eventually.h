// Waiting for what nothing announces.
#pragma once

#include <functional>
#include <thread>

#include "base/poll.h"

namespace stasis::testing {

// Asks until `condition` holds; false if it never does before the deadline.
inline bool eventually(const std::function<bool()>& condition,
                       Deadline deadline = Deadline::after(Milliseconds(20'000))) {
  while (!condition()) {
    if (deadline.passed()) return false;
    std::this_thread::sleep_for(Milliseconds(1));
  }
  return true;
}

}  // namespace stasis::testing
