// snapshot import.
#pragma once

#include "cli/command_line.h"

namespace stasis::cli {

void add_import_command(CommandLine& line, CLI::App& snapshot_group);

}  // namespace stasis::cli
