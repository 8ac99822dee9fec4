// trace.
#include <memory>

#include "cli/command_line.h"
#include "cli/progress.h"
#include "cli/sandbox_view.h"
#include "cli/svg.h"
#include "cli/trace_view.h"

namespace stasis::cli {
namespace {

struct TraceOptions {
  std::string id;
  std::string svg;
};

Result<int> trace(Session& session, const TraceOptions& options) {
  STASIS_ASSIGN(Client * client, session.client());
  STASIS_ASSIGN(const Json answer, client->call("GET", sandbox_path(options.id, "/trace")));
  if (!options.svg.empty()) STASIS_TRY(write_svg(options.svg, trace_svg(answer)));
  if (session.json()) {
    session.print(answer);
  } else {
    print_trace(session.io().out, answer);
  }
  return kSuccess;
}

}  // namespace

void add_trace_command(CommandLine& line) {
  const auto options = std::make_shared<TraceOptions>();
  CLI::App& command =
      add_command(line, line.app, "trace", "How the memory of a restored sandbox has come back, page by page",
                  "stasis trace $id\n"
                  "stasis trace $id --svg restore.svg\n"
                  "stasis trace $id | jq '.events[] | select(.how == \"fault\")'");
  command.add_option("SANDBOX", options->id, "Id of a running sandbox")->required();
  command.add_option("--svg", options->svg, "Draw it into this file: time against guest address");
  command.callback([&line, options] { line.action = [options](Session& s) { return trace(s, *options); }; });
}

}  // namespace stasis::cli
