#include "files/run.h"

#include <signal.h>

#include "base/process.h"
#include "base/unix_socket.h"

namespace stasis::files {
namespace {

constexpr Milliseconds kInterval{200};    // between two questions whether to go on
constexpr Milliseconds kTransfer{5'000};  // for a message that has begun
constexpr Milliseconds kEnd{1'000};       // for a process that has closed its socket

Error too_long() {
  return {Code::kDeadlineExceeded, "it took longer than " + std::to_string(kTimeLimit.count()) + " s"};
}

Status await_message(int socket, const Question& question, const std::function<bool()>& go_on) {
  const Deadline deadline = Deadline::after(question.limit);
  for (;;) {
    STASIS_ASSIGN(const bool ready, wait_readable(socket, Deadline::after(kInterval)));
    if (ready) return {};
    if (!go_on()) return fail(Code::kCancelled, "the comparison was ended");
    if (deadline.passed()) return fail(too_long());
  }
}

// Why it sent nothing.
Error explain(Process& process) {
  const auto ended = process.wait(Deadline::after(kEnd));
  if (!ended || !*ended) return {Code::kInternal, "stasis-files does not answer"};
  if (!(*ended)->exited && (*ended)->signal == SIGALRM) return too_long();
  return {Code::kInternal, "stasis-files has ended: " + (*ended)->text()};
}

}  // namespace

Result<Report> ask(const Question& question, const std::function<bool()>& go_on) {
  STASIS_ASSIGN(auto sockets, unix_socket_pair());
  SpawnOptions options;
  options.argv = {question.program.string(), question.store.string(), question.from.text(), question.to.text()};
  options.stdout_fd = sockets.second.get();
  options.die_with_parent = true;
  STASIS_ASSIGN(Process process, spawn(options));
  sockets.second.reset();
  STASIS_TRY(await_message(sockets.first.get(), question, go_on));
  const auto message = receive_message(sockets.first.get(), kTransfer);
  if (!message || !*message) return fail(explain(process));
  const std::string& body = (*message)->body;
  return decode({reinterpret_cast<const std::byte*>(body.data()), body.size()});
}

}  // namespace stasis::files
