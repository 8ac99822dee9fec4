// Asks the program stasis-files, in a process of its own: what it reads was written by guests. It dies with the caller.
#pragma once

#include <chrono>
#include <functional>

#include "base/file_system.h"
#include "base/poll.h"
#include "files/report.h"
#include "snapshot/manifest.h"

namespace stasis::files {

inline constexpr uint64_t kMemoryLimit = uint64_t{1} << 30;  // bytes of address space
inline constexpr std::chrono::seconds kTimeLimit{60};

struct Question {
  Path program;
  Path store;  // its root
  snapshot::SnapshotId from;
  snapshot::SnapshotId to;
  Milliseconds limit = kTimeLimit;
};

// What the program found, or why it found nothing: also that it was killed, or sent nonsense (kInternal), or took too
// long (kDeadlineExceeded). `go_on` is asked several times a second; false: kCancelled. When this returns the process
// has gone.
Result<Report> ask(const Question& question, const std::function<bool()>& go_on);

}  // namespace stasis::files
