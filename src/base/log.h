// Logging: spdlog to standard error, one line a message: time, level, component, text. A process calls start_logging
// once. Nothing on the path of a page fault logs.
#pragma once

#include <spdlog/spdlog.h>

#include <string>

namespace stasis {

// `component` is the program's short name ("agent", "server", "supervisor 4f2a..."). Level from STASIS_LOG (trace,
// debug, info, warn, err), default info.
void start_logging(const std::string& component);

}  // namespace stasis
