#include "net/sandbox_network.h"

namespace stasis::net {
namespace {

Status refuse_a_namespace_in_use() {
  STASIS_ASSIGN(const auto names, interfaces_up());
  for (const std::string& name : names) {
    if (name == "lo") continue;
    return fail(Code::kFailedPrecondition, "interface " + name + " is up: this is no fresh network namespace");
  }
  return {};
}

Status set_up_tap() {
  STASIS_TRY(create_tap(kTapName));
  STASIS_TRY(set_mac_address(kTapName, kHostMac));
  // Before it is up: afterwards it would have a link-local address, which the guest could talk to.
  STASIS_TRY(disable_ipv6(kTapName));
  STASIS_TRY(set_ipv4_address(kTapName, kHostAddress, kPrefixLength));
  STASIS_TRY(bring_interface_up(kTapName));
  return add_neighbour(kTapName, kGuestAddress, kGuestMac);
}

}  // namespace

Result<SandboxNetwork> set_up_sandbox_network() {
  STASIS_TRY_CONTEXT(refuse_a_namespace_in_use(), "set up sandbox network");
  STASIS_TRY_CONTEXT(bring_interface_up("lo"), "set up sandbox network");
  STASIS_TRY_CONTEXT(set_up_tap(), "set up sandbox network");
  return SandboxNetwork{};
}

}  // namespace stasis::net
