// Child processes. spawn() starts a program (base/vfork.h) with exactly the descriptors named, default signals, in a
// new session if asked, and reports a failed exec as an error of spawn(), not as an exit status. A Process owns its
// child: its destructor kills it with SIGKILL and reaps it, unless it was released. The pidfd is readable from the
// moment the child has exited.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/fd.h"
#include "base/file_system.h"
#include "base/poll.h"
#include "base/result.h"

namespace stasis {

struct SpawnOptions {
  std::vector<std::string> argv;                         // argv[0] is the program: a path, or a name looked up in PATH
  std::vector<std::pair<std::string, std::string>> env;  // added to (or replacing) the caller's environment
  std::vector<std::pair<int, int>> fds;                  // {fd here, fd number in the child}; numbers >= 3
  int stdin_fd = -1;                                     // -1: /dev/null
  int stdout_fd = -1;
  int stderr_fd = -1;
  bool new_session = false;      // setsid(): signals of the caller's terminal and group do not reach it
  bool die_with_parent = false;  // SIGKILL when the *thread* that calls spawn() ends: call it from one that stays
};

// How a process ended, for people: "exit status 1", "signal 9 (Killed)".
struct ExitStatus {
  bool exited = false;  // false: killed by `signal`
  int code = 0;
  int signal = 0;
  bool success() const { return exited && code == 0; }
  std::string text() const;
};

class Process {
 public:
  Process(Process&& other) noexcept;
  Process& operator=(Process&& other) noexcept;
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;
  ~Process();

  pid_t pid() const { return pid_; }
  int pidfd() const { return pidfd_.get(); }
  void signal(int number) const;
  // std::nullopt if it still runs at the deadline. Reaps; further calls return the same status.
  Result<std::optional<ExitStatus>> wait(Deadline deadline);
  // SIGKILL and reap.
  ExitStatus kill_and_wait();
  // Lets the child live on; this object no longer owns anything.
  void release();

 private:
  friend Result<Process> spawn(const SpawnOptions& options);
  Process(pid_t pid, UniqueFd pidfd) : pid_(pid), pidfd_(std::move(pidfd)) {}
  pid_t pid_ = -1;
  UniqueFd pidfd_;
  std::optional<ExitStatus> status_;
};

Result<Process> spawn(const SpawnOptions& options);

// A pidfd of any process: readable when it has exited. kNotFound if there is no such process.
Result<UniqueFd> open_pidfd(pid_t pid);
// Sends a signal through a pidfd: cannot hit a process that reused the number.
void signal_pidfd(int pidfd, int number);

// For a process that was spawned with die_with_parent: it no longer does.
Status outlive_parent();

// Directory of the running executable: where Stasis's other programs are looked for. Asked once and kept, by
// enter_private_mount_namespace() at the latest: in a chroot the kernel gives the path from outside afterwards.
Result<Path> executable_directory();

}  // namespace stasis
