// QMP: QEMU's control protocol (JSON lines) over one end of a socket pair that QEMU inherits. Synchronous: execute()
// sends one command and returns its answer; events that come meanwhile are kept for wait_event(). Every call has a
// deadline. The end of the stream means that QEMU has gone (kUnavailable). Nothing that QEMU sends is trusted: lines
// are bounded, and members are looked up with member(), which cannot throw. Source: docs/interop/qmp-spec.txt of
// QEMU 7.2. Not thread-safe.
#pragma once

#include <deque>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>

#include "base/poll.h"
#include "base/unix_socket.h"

namespace stasis::vmm {

// The member of a member of ... `object`; null if any of them is missing or no object.
const nlohmann::json& member(const nlohmann::json& object, std::initializer_list<const char*> path);
// The same as text; empty if it is no string.
std::string text_member(const nlohmann::json& object, std::initializer_list<const char*> path);

class Qmp {
 public:
  // Reads the greeting and leaves capability negotiation.
  static Result<Qmp> open(UniqueFd socket, Deadline deadline);

  const std::string& version() const { return version_; }

  // An error answer of QEMU becomes kFailedPrecondition with its text. `fd` rides along for getfd. QEMU may still do
  // what it has not answered by the deadline; its answer is dropped when it comes.
  Result<nlohmann::json> execute(const std::string& command, const nlohmann::json& arguments, Deadline deadline,
                                 int fd = -1);

  // Its two halves, for who has something to do until the answer comes. Answers come in the order of the commands.
  Status send(const std::string& command, const nlohmann::json& arguments, int fd = -1);
  Result<nlohmann::json> answer_to(const std::string& command, Deadline deadline);

  // The next event of this name, also one that came before the call.
  Result<nlohmann::json> wait_event(const std::string& name, Deadline deadline);
  // Those that came before the call, and that what is begun now is not to be taken for.
  void forget_events() { events_.clear(); }

  // Readable when QEMU tells something: between commands, events. Then, and after commands (of which it may have come
  // with the answer), take_events() takes what is there, so that it does not pile up.
  int fd() const { return socket_.get(); }
  Status take_events();
  // As the last event about that said: the vCPUs stand, whoever stopped them.
  bool has_stopped() const { return has_stopped_; }

 private:
  explicit Qmp(UniqueFd socket) : socket_(std::move(socket)) {}
  Result<nlohmann::json> read_object(Deadline deadline);
  // False: it is none.
  bool keep_event(nlohmann::json& object);
  // True if it is for a command whose answer nobody waits for any more. No command has an id, of which QEMU would take
  // each byte in a turn of its main loop: it answers in the order of the commands, so they are counted.
  bool drop_if_late(const nlohmann::json& answer);

  UniqueFd socket_;
  std::string buffer_;
  std::string version_;
  std::deque<nlohmann::json> events_;
  bool has_stopped_ = false;
  size_t given_up_ = 0;  // commands whose deadline has passed, and whose answers come before any other
};

}  // namespace stasis::vmm
