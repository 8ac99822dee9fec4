#include "cli/run.h"

#include <algorithm>

#include "cli/command_line.h"

namespace stasis::cli {
namespace {

// Takes what stands behind "--" of `exec` out of the arguments: it is the command's, whatever it looks like.
void split_verbatim(std::vector<std::string>& arguments, std::vector<std::string>& verbatim) {
  const auto mark = std::find(arguments.begin(), arguments.end(), "--");
  if (mark == arguments.end() || std::find(arguments.begin(), mark, "exec") == mark) return;
  verbatim.assign(mark + 1, arguments.end());
  arguments.erase(mark, arguments.end());
}

int report_usage(const CommandLine& line, Io& io, const CLI::ParseError& error) {
  std::string command = "stasis";
  const CLI::App* deepest = &line.app;
  while (!deepest->get_subcommands().empty()) {
    deepest = deepest->get_subcommands().front();
    command += " " + deepest->get_name();
  }
  const Error usage{Code::kInvalidArgument, error.what(), "see '" + command + " --help'"};
  report_error(io, line.common.json || !io.err_terminal, usage);
  return kUsage;
}

}  // namespace

int run(const std::vector<std::string>& arguments, Io& io, const Daemons& daemons, const Environment& environment) {
  CommandLine line;
  build_command_line(line, daemons);
  std::vector<std::string> rest = arguments;
  split_verbatim(rest, line.verbatim);
  std::reverse(rest.begin(), rest.end());  // CLI11 takes them from the back
  try {
    line.app.parse(rest);
  } catch (const CLI::Success& wanted) {  // --help, --version
    line.app.exit(wanted, io.out, io.err);
    return kSuccess;
  } catch (const CLI::ParseError& error) {
    return report_usage(line, io, error);
  }
  Session session(io, line.common, environment);
  const Result<int> outcome = line.action(session);
  if (outcome) return *outcome;
  session.report(outcome.error());
  return session.status_of(outcome.error());
}

}  // namespace stasis::cli
