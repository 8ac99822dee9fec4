// Starts a program as a user: own session, its own pipes or terminal, no descriptor of the daemon, default signals. By
// base/vfork.h: a fork would write-protect all of the daemon's memory, which a guest that has just been restored pays
// for page by page.
#pragma once

#include <sys/types.h>

#include <atomic>
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

// A program that has been found, with its pipes or terminal.
struct PreparedSpawn {
  std::string path;
  UniqueFd stdin_fd;   // non-blocking
  UniqueFd output_fd;  // stdout, or the terminal; non-blocking
  UniqueFd error_fd;   // stderr; invalid with a terminal
  UniqueFd child_in, child_out, child_err;
};

Result<PreparedSpawn> prepare_spawn(const SpawnRequest& request);

// Returns once the program runs, or why it could not be started; closes the child's ends. That can take for ever (a
// program on a file system that does not answer): the caller must hold no lock. A child that is killed before that
// counts as started. `pid` is set before the child's first instruction, so that it can be killed and reaped meanwhile.
Status spawn_as_user(const SpawnRequest& request, PreparedSpawn prepared, std::atomic<pid_t>& pid);

}  // namespace stasis::guest
