// A snapshot of a running sandbox, taken in a thread of its own: whoever drives the sandbox goes on meanwhile with what
// does not need it. A snapshot takes as long as there is memory to copy and to sync, and the guest runs.
#pragma once

#include <memory>
#include <optional>
#include <thread>

#include "base/poll.h"
#include "supervisor/sandbox.h"

namespace stasis::supervisor {

class SnapshotThread {
 public:
  // Begins. `sandbox` outlives this object, and until the end nobody else asks it for anything but its pager_report().
  // kResourceExhausted if there can be no thread.
  static Result<std::unique_ptr<SnapshotThread>> start(Sandbox& sandbox, snapshot::SnapshotId id);
  ~SnapshotThread();  // waits for the end
  SnapshotThread(const SnapshotThread&) = delete;
  SnapshotThread& operator=(const SnapshotThread&) = delete;

  // Readable once it is at its end.
  int done_fd() const { return done_.fd(); }
  // Waits for the end. Once.
  Result<SnapshotReply> result();

 private:
  explicit SnapshotThread(Event done) : done_(std::move(done)) {}
  Event done_;
  std::optional<Result<SnapshotReply>> result_;
  std::thread thread_;
};

}  // namespace stasis::supervisor
