// The whole program, given its arguments and streams: parses, acts, reports, and returns the exit status.
#pragma once

#include <string>
#include <vector>

#include "cli/daemon_options.h"
#include "cli/io.h"
#include "cli/settings.h"

namespace stasis::cli {

// `arguments` without the program's name.
int run(const std::vector<std::string>& arguments, Io& io, const Daemons& daemons, const Environment& environment);

}  // namespace stasis::cli
