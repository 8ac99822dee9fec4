#include "base/fd.h"

#include <unistd.h>

namespace stasis {

void UniqueFd::reset(int fd) {
  // close() is not retried on EINTR: on Linux the descriptor is gone by then.
  if (fd_ >= 0) ::close(fd_);
  fd_ = fd;
}

}  // namespace stasis
