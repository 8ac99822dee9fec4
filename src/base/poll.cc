#include "base/poll.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>

namespace stasis {

int Deadline::poll_timeout() const {
  if (at_ == Clock::time_point::max()) return -1;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(at_ - Clock::now()).count();
  return static_cast<int>(std::clamp<long long>(left, 0, INT_MAX));
}

Result<bool> wait_readable(int fd, Deadline deadline) {
  const std::array fds{fd};
  STASIS_ASSIGN(const auto ready, wait_any(fds, deadline));
  return ready[0];
}

Result<std::bitset<kMaxPolled>> wait_any(std::span<const int> fds, Deadline deadline) {
  if (fds.size() > kMaxPolled) return fail(Code::kInternal, "too many descriptors to wait for");
  std::array<pollfd, kMaxPolled> polled;
  for (size_t i = 0; i < fds.size(); ++i) polled[i] = {fds[i], POLLIN, 0};
  for (;;) {
    const int n = ::poll(polled.data(), fds.size(), deadline.poll_timeout());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(errno, "poll");
    std::bitset<kMaxPolled> ready;
    for (size_t i = 0; i < fds.size(); ++i) ready[i] = polled[i].revents != 0;
    return ready;
  }
}

Result<UniqueFd> readable_after(Milliseconds span) {
  UniqueFd fd(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  if (!fd) return fail_errno(errno, "timerfd_create");
  const auto left = std::max(std::chrono::nanoseconds(span), std::chrono::nanoseconds(1));  // 0 would be never
  itimerspec at{};
  at.it_value.tv_sec = left.count() / 1'000'000'000;
  at.it_value.tv_nsec = left.count() % 1'000'000'000;
  if (::timerfd_settime(fd.get(), 0, &at, nullptr) != 0) return fail_errno(errno, "timerfd_settime");
  return fd;
}

Result<Event> Event::create() {
  UniqueFd fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!fd) return fail_errno(errno, "create eventfd");
  return Event(std::move(fd));
}

void Event::set() const {
  const uint64_t one = 1;
  // Fails only if the counter is about to overflow, and then the event is set anyway.
  [[maybe_unused]] const ssize_t n = ::write(fd_.get(), &one, sizeof one);
}

void Event::clear() const {
  uint64_t count = 0;
  [[maybe_unused]] const ssize_t n = ::read(fd_.get(), &count, sizeof count);
}

}  // namespace stasis
