// The way out of a sandbox: optional, and made after its own network (sandbox_network.h). A virtual Ethernet pair leads
// from the sandbox's namespace to the host's, with a /30 of 10.201.0.0/16 that is the sandbox's slot. Traffic is
// translated twice: to the slot's address on leaving the sandbox, to the host's on leaving the host.
//
// What a guest reaches is the public Internet. Rules in the host's table `stasis` drop what it sends to the host itself
// (any address), to other sandboxes, to private and link-local ranges and to the metadata services of clouds; nobody
// can open a connection to a guest. A guest therefore needs a public name server.
//
// The pair goes with the sandbox's namespace, so nothing of a killed supervisor stays except the table, which has no
// effect without interfaces of its name and goes with the last orderly removal, or sweep().
#pragma once

#include <memory>
#include <string>

#include "base/file_system.h"
#include "base/firewall.h"
#include "base/network.h"
#include "base/route_socket.h"

namespace stasis::net {

inline constexpr uint32_t kEgressSlots = 16384;
inline constexpr char kOutsideName[] = "out0";  // in the sandbox's namespace

// The host's namespace, to be opened while the calling process is in it, and used after it has gone to the sandbox's.
class HostNetwork {
 public:
  // `lock_file` is the same for all processes of a host (made if missing): it orders changes of the shared table.
  // kFailedPrecondition if the host does not forward IPv4.
  static Result<std::unique_ptr<HostNetwork>> open(Path lock_file);

  // Removes the table if no sandbox has a way out. For the start of the agent.
  Status sweep();

 private:
  friend class Egress;
  HostNetwork(Path lock_file, RouteSocket routes, Firewall firewall)
      : lock_file_(std::move(lock_file)), routes_(std::move(routes)), firewall_(std::move(firewall)) {}
  Result<UniqueFd> lock() const;
  Result<uint32_t> take_slot();
  Status remove_unused_table();

  const Path lock_file_;
  RouteSocket routes_;
  Firewall firewall_;
};

class Egress {
 public:
  // Call in the sandbox's namespace, after set_up_sandbox_network(). `host` must outlive the result.
  static Result<std::unique_ptr<Egress>> create(HostNetwork& host);
  ~Egress();
  Egress(const Egress&) = delete;
  Egress& operator=(const Egress&) = delete;

  // How the host sees the sandbox.
  Ipv4Address address() const;
  // The pair's end on the host: "stasis42".
  std::string host_interface() const;

 private:
  Egress(HostNetwork& host, uint32_t slot) : host_(host), slot_(slot) {}
  Status set_up(RouteSocket& inside);

  HostNetwork& host_;
  const uint32_t slot_;
};

}  // namespace stasis::net
