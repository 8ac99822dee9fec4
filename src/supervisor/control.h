// The supervisor's control loop: serves the agent's requests (protocol.h) one after another, and watches the VMM. While
// a snapshot of the running sandbox is taken, who wants to reach the guest is served, and who asks for the pager's
// report; all else waits, the VMM's death too. The loop ends when a pause or stop was asked for, when a signal asks for
// the end, or when the VMM has gone; the result says why.
#pragma once

#include "base/fd.h"
#include "supervisor/protocol.h"
#include "supervisor/sandbox.h"

namespace stasis::supervisor {

// Takes the sandbox over: it has ended, with all that belongs to it, before the last answer is sent and before this
// returns. `listener` is the control socket, `signal_fd` delivers SIGTERM and SIGINT. `client`, if there is one, has
// connected already.
ExitRecord serve(std::unique_ptr<Sandbox> sandbox, int listener, int signal_fd, UniqueFd client);

}  // namespace stasis::supervisor
