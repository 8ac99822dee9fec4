// What `server`, `agent` and `up` were told on the command line. The daemons themselves are rooms of their own; the
// program hands them in, so that this room can be built and tested without them.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "base/file_system.h"
#include "base/result.h"

namespace stasis::cli {

inline constexpr uint16_t kDefaultPort = 7878;
inline constexpr size_t kDefaultSpares = 1;
inline constexpr size_t kMaxSpares = 16;

struct ServerArguments {
  Path state_dir;
  Path agent_socket;
  std::string listen_address = "127.0.0.1";
  uint16_t port = kDefaultPort;  // 0: a free one
};

struct AgentArguments {
  Path state_dir;
  Path socket;
  std::vector<std::pair<std::string, Path>> images;
  Path supervisor_program;
  std::string vmm = "auto";
  size_t spares = kDefaultSpares;
};

struct UpArguments {
  Path state_dir;
  std::vector<std::pair<std::string, Path>> images;
  uint16_t port = 0;  // a free one
  std::string vmm = "auto";
  size_t spares = kDefaultSpares;
};

// Each runs until it is told to stop (SIGTERM).
struct Daemons {
  std::function<Status(const ServerArguments&)> server;
  std::function<Status(const AgentArguments&)> agent;
};

// Where the agent of a state directory listens.
inline Path agent_socket_of(const Path& state_dir) { return state_dir / "agent.sock"; }

// "NAME=DIR" or "DIR" (named base).
Result<std::pair<std::string, Path>> parse_image(const std::string& text);
// The image that came with this program: build/image or the installed one. kNotFound with the remedy if there is none.
Result<Path> default_image();

}  // namespace stasis::cli
