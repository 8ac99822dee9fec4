#include "base/file.h"

#include <fcntl.h>

#include <cerrno>

namespace stasis {

Result<UniqueFd> open_append(const Path& path) {
  UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  if (!fd) return fail_errno(errno, "open " + path.string());
  return fd;
}

Result<UniqueFd> duplicate(int fd) {
  UniqueFd copy(::fcntl(fd, F_DUPFD_CLOEXEC, 3));
  if (!copy) return fail_errno(errno, "duplicate descriptor");
  return copy;
}

}  // namespace stasis
