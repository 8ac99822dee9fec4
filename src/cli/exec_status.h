// The exit status that `exec` hands on, as a shell would: the command's own, or 128 + the number of the signal that
// ended it.
#pragma once

#include "cli/client.h"

namespace stasis::cli {

// 255 if the command did not exit by itself and its status names no signal that is known.
int exit_status_of(const ExecEnd& end);

}  // namespace stasis::cli
