#include "base/fuse_device.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdio>

namespace stasis {
namespace {

constexpr uint64_t kRequest = 0;
constexpr uint64_t kStop = 1;

Status add(int epoll, int fd, uint32_t events, uint64_t tag) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = tag;
  if (::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0) return fail_errno(errno, "add to epoll");
  return {};
}

}  // namespace

Result<UniqueFd> mount_fuse(const Path& directory) {
  UniqueFd fd(::open("/dev/fuse", O_RDWR | O_CLOEXEC | O_NONBLOCK));
  if (!fd) return fail(errno_error(errno, "open /dev/fuse").with_remedy("load the kernel module: modprobe fuse"));
  char options[128];
  std::snprintf(options, sizeof options, "fd=%d,rootmode=%o,user_id=0,group_id=0,default_permissions", fd.get(),
                unsigned{S_IFDIR});
  if (::mount("stasis", directory.c_str(), "fuse", MS_NOSUID | MS_NODEV | MS_NOEXEC, options) != 0) {
    return fail_errno(errno, "mount FUSE file system on " + directory.string());
  }
  return fd;
}

Result<std::unique_ptr<RequestQueue>> RequestQueue::create(int fuse_fd) {
  STASIS_ASSIGN(Event stop, Event::create());
  UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll) return fail_errno(errno, "create epoll");
  // Edge-triggered, so that one request does not wake every thread; the stop event stays readable and wakes all.
  STASIS_TRY(add(epoll.get(), fuse_fd, EPOLLIN | EPOLLET, kRequest));
  STASIS_TRY(add(epoll.get(), stop.fd(), EPOLLIN, kStop));
  return std::unique_ptr<RequestQueue>(new RequestQueue(std::move(stop), std::move(epoll)));
}

Result<bool> RequestQueue::wait() const {
  for (;;) {
    epoll_event event{};
    const int n = ::epoll_wait(epoll_.get(), &event, 1, -1);
    if (n < 0 && errno != EINTR) return fail_errno(errno, "wait for FUSE requests");
    if (n == 1) return event.data.u64 == kRequest;
  }
}

}  // namespace stasis
