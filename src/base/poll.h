// Waiting: deadlines on the monotonic clock, poll(2) over descriptors, and an event that one thread sets and others
// wait for.
#pragma once

#include <bitset>
#include <chrono>
#include <cstddef>
#include <span>
#include <utility>

#include "base/fd.h"
#include "base/result.h"

namespace stasis {

using Milliseconds = std::chrono::milliseconds;

class Deadline {
 public:
  using Clock = std::chrono::steady_clock;
  static Deadline after(std::chrono::milliseconds span) { return Deadline(Clock::now() + span); }
  static Deadline never() { return Deadline(Clock::time_point::max()); }
  static Deadline from(Clock::time_point at) { return Deadline(at); }
  bool passed() const { return Clock::now() >= at_; }
  // For poll(2): milliseconds left, rounded up; -1 for never, 0 if passed.
  int poll_timeout() const;
  Clock::time_point at() const { return at_; }

 private:
  explicit Deadline(Clock::time_point at) : at_(at) {}
  Clock::time_point at_;
};

// True if `fd` has something to read, or its other end has gone; false if the deadline passed first.
Result<bool> wait_readable(int fd, Deadline deadline);

inline constexpr size_t kMaxPolled = 64;

// A descriptor that becomes readable once so much time has passed, for who waits for descriptors only.
Result<UniqueFd> readable_after(Milliseconds span);

// For each of `fds` (at most kMaxPolled), by its index: is it readable, or gone? Returns when at least one is, or at
// the deadline (none). A negative descriptor is never ready. Allocates nothing.
Result<std::bitset<kMaxPolled>> wait_any(std::span<const int> fds, Deadline deadline);

// Stays readable from set() on until clear(). Copies of the descriptor number may be polled anywhere.
class Event {
 public:
  static Result<Event> create();
  void set() const;
  void clear() const;
  int fd() const { return fd_.get(); }

 private:
  explicit Event(UniqueFd fd) : fd_(std::move(fd)) {}
  UniqueFd fd_;
};

}  // namespace stasis
