// The grammar of the program: one parser with a subcommand per file of commands. A subcommand that was parsed leaves
// the action to run; nothing happens while parsing.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>
#include <vector>

#include "cli/daemon_options.h"
#include "cli/session.h"
#include "cli/settings.h"

namespace stasis::cli {

struct CommandLine {
  CLI::App app{"Stasis runs untrusted code in microVM sandboxes, and freezes and thaws them.", "stasis"};
  CommonOptions common;
  Action action;
  // What stood behind "--" on the command line of `exec`.
  std::vector<std::string> verbatim;
};

// Builds the whole grammar. `line` must stay where it is: the parser writes into it.
void build_command_line(CommandLine& line, const Daemons& daemons);

// A subcommand with the options that all take, and its examples, one a line, at the end of its help.
CLI::App& add_command(CommandLine& line, CLI::App& parent, const std::string& name, const std::string& description,
                      const std::string& examples);
// The same for commands that talk to no server: only --json and --state-dir.
CLI::App& add_local_command(CommandLine& line, const std::string& name, const std::string& description,
                            const std::string& examples);

// An option that may be repeated and takes one value each time.
CLI::Option* add_repeated(CLI::App& command, const std::string& names, std::vector<std::string>& values,
                          const std::string& description);

void add_sandbox_commands(CommandLine& line);  // create ls pause resume rm
void add_exec_command(CommandLine& line);
void add_cp_command(CommandLine& line);
void add_snapshot_commands(CommandLine& line);
void add_archive_commands(CommandLine& line, CLI::App& snapshot_group);  // snapshot export, import, pack
// Into the group `snapshot`, which must be there.
void add_verify_command(CommandLine& line);
void add_inspect_commands(CommandLine& line);    // inspect tree diff
void add_retention_commands(CommandLine& line);  // retention set ls rm
void add_store_commands(CommandLine& line);      // store df gc compact
void add_trace_command(CommandLine& line);
void add_daemon_commands(CommandLine& line, const Daemons& daemons);  // up server agent
void add_doctor_command(CommandLine& line);
void add_completion_command(CommandLine& line);
void add_version_command(CommandLine& line);

}  // namespace stasis::cli
