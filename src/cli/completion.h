// Completion scripts for shells, made from the parser itself, so that they cannot lag behind it.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "base/result.h"

namespace stasis::cli {

// `shell` is bash, zsh or fish.
Result<std::string> completion_script(const CLI::App& app, const std::string& shell);

}  // namespace stasis::cli
