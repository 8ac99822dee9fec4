// The network inside a sandbox's own namespace: loopback, and one tap device to the guest. Names and addresses are the
// same in every sandbox, so that a frozen guest finds what it knew wherever it is thawed; the host's side has a fixed
// hardware address and a permanent neighbour entry for the guest's, so that the first packet after a resume needs no
// ARP on either side. There is no route out: the guest reaches the supervisor's end of the link, where nothing listens,
// and nothing else.
#pragma once

#include <string>

#include "base/network.h"

namespace stasis::net {

inline constexpr char kTapName[] = "tap0";
inline constexpr Ipv4Address kHostAddress = ipv4(172, 30, 0, 1);
inline constexpr Ipv4Address kGuestAddress = ipv4(172, 30, 0, 2);
inline constexpr unsigned kPrefixLength = 30;
inline constexpr char kNetmask[] = "255.255.255.252";
inline constexpr MacAddress kHostMac = {{0x06, 0x00, 0xac, 0x1e, 0x00, 0x01}};
inline constexpr MacAddress kGuestMac = {{0x06, 0x00, 0xac, 0x1e, 0x00, 0x02}};

struct SandboxNetwork {
  std::string tap = kTapName;  // for the VMM, which opens it by name
  Ipv4Address host_address = kHostAddress;
  Ipv4Address guest_address = kGuestAddress;
  unsigned prefix_length = kPrefixLength;
  MacAddress guest_mac = kGuestMac;
};

// Call once in a fresh network namespace (enter_private_network_namespace). kFailedPrecondition if an interface other
// than loopback is up: that is the host's namespace, or one that is in use. Everything goes with the namespace.
Result<SandboxNetwork> set_up_sandbox_network();

}  // namespace stasis::net
