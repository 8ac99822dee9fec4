#include "cli/command_line.h"

#include "cli/version.h"

namespace stasis::cli {
namespace {

constexpr const char* kConnection = "Server";
constexpr const char* kOutput = "Output";

void add_json(CommandLine& line, CLI::App& command) {
  command.add_flag("--json", line.common.json, "JSON, also on a terminal")->group(kOutput);
}

void add_state_dir(CommandLine& line, CLI::App& command) {
  command
      .add_option("--state-dir", line.common.state_dir, "State directory (STASIS_STATE_DIR; default: /var/lib/stasis)")
      ->group(kConnection);
}

void add_common(CommandLine& line, CLI::App& command) {
  command.add_option("--url", line.common.url, "Where the server is (STASIS_URL; default: STATE/server.json)")
      ->group(kConnection);
  command.add_option("--token", line.common.token, "API token (STASIS_TOKEN; default: STATE/api-token)")
      ->group(kConnection);
  add_state_dir(line, command);
  add_json(line, command);
}

std::string example_text(const std::string& examples) {
  std::string text = "Examples:\n  ";
  for (const char c : examples) text += c == '\n' ? std::string("\n  ") : std::string(1, c);
  return text;
}

CLI::App& add_plain(CLI::App& parent, const std::string& name, const std::string& description,
                    const std::string& examples) {
  CLI::App& command = *parent.add_subcommand(name, description);
  command.footer(example_text(examples));
  return command;
}

}  // namespace

CLI::App& add_command(CommandLine& line, CLI::App& parent, const std::string& name, const std::string& description,
                      const std::string& examples) {
  CLI::App& command = add_plain(parent, name, description, examples);
  add_common(line, command);
  return command;
}

CLI::App& add_local_command(CommandLine& line, const std::string& name, const std::string& description,
                            const std::string& examples) {
  CLI::App& command = add_plain(line.app, name, description, examples);
  add_state_dir(line, command);
  add_json(line, command);
  return command;
}

CLI::Option* add_repeated(CLI::App& command, const std::string& names, std::vector<std::string>& values,
                          const std::string& description) {
  return command.add_option(names, values, description)->allow_extra_args(false);
}

void build_command_line(CommandLine& line, const Daemons& daemons) {
  line.app.require_subcommand(1);
  add_common(line, line.app);  // before the command or behind it: whichever the user thinks of first
  line.app.set_version_flag("--version", std::string(kVersionText));
  line.app.footer(
      "Examples:\n"
      "  stasis up                     start the server and the host agent here\n"
      "  id=$(stasis create -q)        a new sandbox\n"
      "  stasis exec $id -- uname -a   run something in it\n"
      "  stasis pause $id              freeze it\n"
      "  stasis resume $id             thaw it\n"
      "Exit status: 0, 1 if it failed, 2 for a wrong command line, 3 if no server answers; exec: the command's own.");
  add_daemon_commands(line, daemons);
  add_sandbox_commands(line);
  add_trace_command(line);
  add_exec_command(line);
  add_cp_command(line);
  add_snapshot_commands(line);
  add_verify_command(line);
  add_inspect_commands(line);
  add_retention_commands(line);
  add_store_commands(line);
  add_doctor_command(line);
  add_completion_command(line);
  add_version_command(line);
}

}  // namespace stasis::cli
