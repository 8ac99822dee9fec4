#include "base/poll_set.h"

#include <sys/epoll.h>

#include <array>
#include <cerrno>

namespace stasis {

Result<PollSet> PollSet::of(std::span<const int> fds) {
  if (fds.size() > kMaxPolled) return fail(Code::kInternal, "too many descriptors to wait for");
  UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll) return fail_errno(errno, "create epoll");
  for (size_t i = 0; i < fds.size(); ++i) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = i;
    if (::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fds[i], &event) != 0) return fail_errno(errno, "epoll_ctl");
  }
  return PollSet(std::move(epoll));
}

Result<std::bitset<kMaxPolled>> PollSet::wait(Deadline deadline) const {
  std::array<epoll_event, kMaxPolled> events;
  for (;;) {
    const int n = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), deadline.poll_timeout());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(errno, "epoll_wait");
    std::bitset<kMaxPolled> ready;
    for (const epoll_event& event : std::span(events).first(static_cast<size_t>(n))) ready[event.data.u64] = true;
    return ready;
  }
}

}  // namespace stasis
