// Starts a program as a user: own session, its own pipes or terminal, no descriptor of the daemon, default signals.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "guest/users.h"

namespace stasis::guest {

struct TerminalSize {
  uint16_t columns = 80;
  uint16_t rows = 24;
};

struct SpawnRequest {
  std::string program;  // a path, or a name looked up in PATH of `environment`
  std::vector<std::string> arguments;
  std::vector<std::string> environment;  // "NAME=value"
  std::string directory;
  User user;
  bool stdin_open = true;  // false: /dev/null
  std::optional<TerminalSize> terminal;
};

struct Spawned {
  pid_t pid = -1;
  UniqueFd stdin_fd;     // non-blocking
  UniqueFd output_fd;    // stdout, or the terminal; non-blocking
  UniqueFd error_fd;     // stderr; invalid with a terminal
  UniqueFd exec_status;  // see exec_result
};

// Checks the program, and forks. The caller must note the pid before it lets anyone reap it.
Result<Spawned> spawn_as_user(const SpawnRequest& request);
// Waits until the child has started its program; the reason if it could not.
Status exec_result(const Spawned& spawned, const SpawnRequest& request);

}  // namespace stasis::guest
