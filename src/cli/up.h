// `stasis up`: server and agent of one state directory on one machine, kept running until a signal.
#pragma once

#include <string>
#include <vector>

#include "cli/daemon_options.h"
#include "cli/keeper.h"
#include "cli/session.h"

namespace stasis::cli {

// The two services of `up`, the agent first. `program` is this program's file.
std::vector<Service> up_services(const Path& program, const UpArguments& arguments);

Result<int> run_up(Session& session, const UpArguments& arguments);

}  // namespace stasis::cli
