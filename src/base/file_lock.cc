#include "base/file_lock.h"

#include <fcntl.h>
#include <sys/file.h>

#include <cerrno>

#include "base/file.h"

namespace stasis {

Result<FileLock> FileLock::try_exclusive(const Path& path) {
  STASIS_ASSIGN(UniqueFd fd, open_append(path));
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) return fail(Code::kFailedPrecondition, path.string() + " is locked by another process");
    return fail_errno(errno, "lock " + path.string());
  }
  return FileLock(std::move(fd));
}

namespace {

Result<UniqueFd> lock(UniqueFd fd, const Path& path, LockKind kind) {
  int operation = kind == LockKind::kShared ? LOCK_SH : LOCK_EX;
  if (kind == LockKind::kTryExclusive) operation |= LOCK_NB;
  while (::flock(fd.get(), operation) != 0) {
    if (errno == EWOULDBLOCK) return fail(Code::kAborted, path.string() + " is in use");
    if (errno != EINTR) return fail_errno(errno, "lock " + path.string());
  }
  return fd;
}

}  // namespace

Result<UniqueFd> lock_file(const Path& path, LockKind kind) {
  STASIS_ASSIGN(UniqueFd fd, open_append(path));
  return lock(std::move(fd), path, kind);
}

Result<UniqueFd> lock_directory(const Path& path, LockKind kind) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return fail_errno(errno, "open directory " + path.string());
  return lock(std::move(fd), path, kind);
}

}  // namespace stasis
