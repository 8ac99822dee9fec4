// The kernel's side of a FUSE file system: mounting one without a helper program, and waiting for its requests in
// several threads of which each request wakes only one.
#pragma once

#include <memory>

#include "base/fd.h"
#include "base/file_system.h"
#include "base/poll.h"
#include "base/result.h"

namespace stasis {

// Mounts a FUSE file system on an existing directory, in the caller's mount namespace, for root only, without devices,
// set-uid or exec. The descriptor is the connection to the kernel, non-blocking: whoever closes its last copy ends the
// file system, and everything that waits for it gets ENOTCONN. Unmount with unmount() (namespaces.h).
Result<UniqueFd> mount_fuse(const Path& directory);

// Wakes one waiting thread for each request on a FUSE connection, and all of them, for good, by stop().
class RequestQueue {
 public:
  static Result<std::unique_ptr<RequestQueue>> create(int fuse_fd);
  // True if there may be a request: read until EAGAIN before waiting again. False once stopped.
  Result<bool> wait() const;
  void stop() const { stop_.set(); }

 private:
  RequestQueue(Event stop, UniqueFd epoll) : stop_(std::move(stop)), epoll_(std::move(epoll)) {}
  Event stop_;
  UniqueFd epoll_;
};

}  // namespace stasis
