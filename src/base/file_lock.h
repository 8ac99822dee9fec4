// One process at a time: an exclusive flock(2) on a file, held as long as the object lives. The kernel lets go of it
// when the process dies, however it dies. The file itself stays.
#pragma once

#include "base/fd.h"
#include "base/file_system.h"
#include "base/result.h"

namespace stasis {

class FileLock {
 public:
  // Makes the file (mode 0600) if it is missing. kFailedPrecondition if another open file description holds the lock.
  static Result<FileLock> try_exclusive(const Path& path);

 private:
  explicit FileLock(UniqueFd fd) : fd_(std::move(fd)) {}
  UniqueFd fd_;
};

enum class LockKind {
  kShared,        // waits while somebody holds it exclusively
  kTryExclusive,  // kAborted at once if anybody holds it
  kExclusive,     // waits while anybody holds it
};

// The same file lock in its other forms: held as long as the descriptor is open.
Result<UniqueFd> lock_file(const Path& path, LockKind kind);
// The same on a directory that is there: kNotFound if it is not.
Result<UniqueFd> lock_directory(const Path& path, LockKind kind);

}  // namespace stasis
