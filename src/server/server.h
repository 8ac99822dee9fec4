// The control plane: REST on one side, the host agent's gRPC on the other, SQLite in between. It runs without an agent
// too: what needs one is answered with 503, and when it appears the rows are brought in line. State directory:
// server.db, api-token (mode 0600, made at the first start), server.json {"url","pid"} (while it listens), server.lock
// (one server per directory). Stopping or killing it ends no sandbox; an operation under way is settled at the next
// start.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "base/file_system.h"
#include "base/result.h"
#include "server/reconciler.h"

namespace stasis::server {

struct ServerOptions {
  Path state_dir;
  Path agent_socket;
  std::string listen_address = "127.0.0.1";
  uint16_t port = 0;  // 0: a free one
  size_t max_connections = 128;
  ReconcilerOptions reconciler = {};
  std::chrono::milliseconds stop_patience{8000};  // for requests under way
};

class Server {
 public:
  static Result<std::unique_ptr<Server>> start(const ServerOptions& options);
  virtual ~Server() = default;  // stops

  virtual void stop() = 0;
  virtual std::string url() const = 0;
  virtual std::string token() const = 0;
  // One pass of the reconciler, now: for tests.
  virtual Status reconcile() = 0;
};

// Runs until SIGTERM or SIGINT. To be called before the process has started any thread.
Status run_server(const ServerOptions& options);

}  // namespace stasis::server
