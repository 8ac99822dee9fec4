// HostAgentApi over gRPC on a unix socket. Connects when it is needed and again after the agent has restarted.
#pragma once

#include <memory>

#include "base/file_system.h"
#include "server/host_agent.h"

namespace stasis::server {

class GrpcAgent : public HostAgentApi {
 public:
  // Ends every call that is under way (kCancelled) and refuses new ones.
  virtual void shut_down() = 0;
};

std::unique_ptr<GrpcAgent> connect_agent(const Path& socket);

}  // namespace stasis::server
