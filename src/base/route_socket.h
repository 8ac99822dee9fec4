// Interfaces through rtnetlink. A RouteSocket works on the network namespace in which it was opened, also after its
// process has gone to another one. Not thread-safe. CAP_NET_ADMIN is needed, without it the answer is
// kPermissionDenied.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/network.h"
#include "base/result.h"

struct mnl_socket;

namespace stasis {

class RouteSocket {
 public:
  static Result<RouteSocket> open();

  // Makes a pair of virtual Ethernet interfaces, both down: `name` here, `peer` in the calling thread's namespace. If
  // either end or its namespace goes, the other goes too. kAlreadyExists if a name is taken.
  Status create_veth(const std::string& name, const std::string& peer);
  // The interface gets no IPv6 address by itself when it comes up.
  Status no_automatic_ipv6(const std::string& name);
  // kNotFound if there is none.
  Status remove(const std::string& name);
  Status bring_up(const std::string& name);
  Status add_address(const std::string& name, Ipv4Address address, unsigned prefix_length);
  // All traffic that has no other route goes to `gateway`, which must be on an attached network.
  Status add_default_route(Ipv4Address gateway);
  // Names of all interfaces, up or not.
  Result<std::vector<std::string>> interfaces();

 private:
  struct Close {
    void operator()(mnl_socket* socket) const;
  };
  explicit RouteSocket(mnl_socket* socket) : socket_(socket) {}
  class Request;
  Status transact(Request& request, const std::string& what);
  Result<uint32_t> index_of(const std::string& name);

  std::unique_ptr<mnl_socket, Close> socket_;
  uint32_t sequence_ = 0;
};

}  // namespace stasis
