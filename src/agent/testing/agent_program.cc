// The agent as a program of its own, for tests that kill it: agent_test_program STATE_DIR SUPERVISOR IMAGE_DIR SPARES
// warm|cold
#include <string>

#include "agent/agent.h"

int main(int argc, char** argv) {
  if (argc != 6) return 2;
  stasis::agent::AgentOptions options;
  options.state_dir = argv[1];
  options.socket = options.state_dir / "agent.sock";
  options.supervisor_program = argv[2];
  options.images = {{"base", argv[3]}};
  options.vmm = "qemu";
  options.warm_bases = std::string(argv[5]) == "warm";
  options.spares = std::stoul(argv[4]);
  return stasis::agent::run_agent(options) ? 0 : 1;
}
