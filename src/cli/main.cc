// The program `stasis`: the command line, with the two daemons that it can become.
#include <iostream>

#include "agent/agent.h"
#include "cli/run.h"
#include "server/server.h"

namespace {

using namespace stasis;

Status run_server(const cli::ServerArguments& arguments) {
  server::ServerOptions options;
  options.state_dir = arguments.state_dir;
  options.agent_socket = arguments.agent_socket;
  options.listen_address = arguments.listen_address;
  options.port = arguments.port;
  return server::run_server(options);
}

Status run_agent(const cli::AgentArguments& arguments) {
  agent::AgentOptions options;
  options.state_dir = arguments.state_dir;
  options.socket = arguments.socket;
  options.images = arguments.images;
  options.supervisor_program = arguments.supervisor_program;
  options.vmm = arguments.vmm;
  options.spares = arguments.spares;
  return agent::run_agent(options);
}

}  // namespace

int main(int argc, char** argv) {
  std::ios::sync_with_stdio(false);
  cli::Io io{std::cin, std::cout, std::cerr, input_kind(0), is_terminal(1), is_terminal(2)};
  return cli::run({argv + 1, argv + argc}, io, {.server = run_server, .agent = run_agent}, cli::process_environment);
}
