// A supervisor that has a shell (shell.h) with a prepared VMM, and waits to be told which sandbox it is (protocol.h).
#pragma once

#include <optional>

#include "base/fd.h"
#include "supervisor/shell.h"

namespace stasis::supervisor {

struct Takeover {
  Path sandbox_dir;
  SandboxConfig config;
  Shell shell;
  UniqueFd client;  // asked for it, and goes on asking
};

// Makes the shell and waits. Nothing if it was asked to end, or nobody needs it any more. `dir` is the directory of the
// spare, `listener` its control socket, which is then that of the sandbox; `signal_fd` delivers SIGTERM and SIGINT.
Result<std::optional<Takeover>> wait_as_spare(const Path& dir, int listener, int signal_fd);

}  // namespace stasis::supervisor
