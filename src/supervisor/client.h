// The agent's side of the supervisor's protocol (protocol.h): one connection to one supervisor. Calls are serialised
// inside, so any thread may call; a `pause` blocks others meanwhile. An answer that does not come within the call's
// deadline breaks the connection (kDeadlineExceeded): the caller decides what becomes of the supervisor.
#pragma once

#include <memory>
#include <mutex>

#include "base/network.h"
#include "base/unix_socket.h"
#include "supervisor/protocol.h"

namespace stasis::supervisor {

class Client {
 public:
  // kUnavailable if no supervisor listens in this directory, of a sandbox or of a spare.
  static Result<std::unique_ptr<Client>> connect(const Path& dir);

  Result<StateReply> state(Milliseconds deadline);
  // The same, and tells that the guest's daemon answers.
  Result<StateReply> state_when_answered(Milliseconds deadline);
  Result<PagerReport> pager(Milliseconds deadline);
  Result<TraceReply> trace(Milliseconds deadline);
  Result<SnapshotReply> pause(snapshot::SnapshotId id, Milliseconds deadline);
  Result<SnapshotReply> snapshot(snapshot::SnapshotId id, Milliseconds deadline);
  // A socket in the sandbox's network namespace, for the caller to connect.
  Result<UniqueFd> guest_socket(Transport transport, Milliseconds deadline);
  // Of a spare: waits until it is ready; makes it the supervisor of this sandbox.
  Status await_spare(Milliseconds deadline);
  Status become(const Path& sandbox_dir, Milliseconds deadline);
  Status stop(const std::string& reason, Milliseconds deadline);
  // From any thread: breaks the connection, so that a call under way and all later ones fail with kUnavailable. The
  // supervisor goes on with what it was asked.
  void interrupt();

  pid_t pid() const { return pid_; }  // of the supervisor
  // Readable once the supervisor process has exited.
  int pidfd() const { return pidfd_.get(); }

 private:
  Client(UniqueFd socket, pid_t pid, UniqueFd pidfd);
  Result<Message> call(const nlohmann::json& request, Milliseconds deadline);
  Result<nlohmann::json> call_json(const nlohmann::json& request, Milliseconds deadline);
  void close_connection();

  std::mutex mutex_;         // held during a call
  std::mutex socket_mutex_;  // guards only the descriptor's life, against interrupt()
  UniqueFd socket_;
  pid_t pid_;
  UniqueFd pidfd_;
};

}  // namespace stasis::supervisor
