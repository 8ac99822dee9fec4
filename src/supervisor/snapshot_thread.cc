#include "supervisor/snapshot_thread.h"

#include <system_error>

namespace stasis::supervisor {

Result<std::unique_ptr<SnapshotThread>> SnapshotThread::start(Sandbox& sandbox, snapshot::SnapshotId id) {
  STASIS_ASSIGN(Event done, Event::create());
  std::unique_ptr<SnapshotThread> taking(new SnapshotThread(std::move(done)));
  try {
    taking->thread_ = std::thread([&sandbox, id, self = taking.get()] {
      self->result_ = sandbox.take_snapshot(id, true);
      self->done_.set();
    });
  } catch (const std::system_error& error) {
    return fail_errno(error.code().value(), "start a thread for the snapshot");
  }
  return taking;
}

SnapshotThread::~SnapshotThread() {
  if (thread_.joinable()) thread_.join();
}

Result<SnapshotReply> SnapshotThread::result() {
  thread_.join();
  return std::move(*result_);
}

}  // namespace stasis::supervisor
