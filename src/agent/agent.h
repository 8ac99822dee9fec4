// The host agent: a Host behind gRPC on a unix socket (mode 0600), and nothing else. It may be stopped, killed and
// started again at any time; sandboxes live on with their supervisors.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/file_system.h"
#include "base/result.h"

namespace stasis::agent {

struct AgentOptions {
  Path state_dir;
  Path socket;
  std::vector<std::pair<std::string, Path>> images;  // name, directory made by images/build.py
  Path supervisor_program;                           // empty: stasis-supervisor beside this program
  Path files_program;                                // empty: stasis-files beside this program
  std::string vmm = "auto";  // "qemu", "firecracker"; auto: Firecracker where KVM works and it is there
  bool warm_bases = true;    // keep each image booted (warm_bases.h)
  size_t spares = 1;         // supervisors started ahead, at most 16 (spares.h)
};

class Agent {
 public:
  // Serves when this returns.
  static Result<std::unique_ptr<Agent>> start(const AgentOptions& options);
  // Stops serving; leaves every sandbox running.
  ~Agent();
  Agent(const Agent&) = delete;
  Agent& operator=(const Agent&) = delete;

 private:
  struct State;
  explicit Agent(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// Runs until SIGTERM or SIGINT. Call before any thread is started.
Status run_agent(const AgentOptions& options);

}  // namespace stasis::agent
