// `stasis up`: server and agent of one state directory on one machine, kept running until a signal.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "cli/daemon_options.h"
#include "cli/keeper.h"
#include "cli/session.h"

namespace stasis::cli {

// The two services of `up`, the agent first. `program` is this program's file.
std::vector<Service> up_services(const Path& program, const UpArguments& arguments);

// The URL as soon as both answer; empty if a signal came first. A service that ends before is an error: nothing that a
// restart heals. `notice` is called after every `interval` of waiting.
Result<std::string> wait_until_ready(Keeper& keeper, const UpArguments& arguments, std::chrono::milliseconds interval,
                                     const std::function<void()>& notice);

Result<int> run_up(Session& session, const UpArguments& arguments);

}  // namespace stasis::cli
