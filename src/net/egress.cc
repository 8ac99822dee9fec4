#include "net/egress.h"

#include <algorithm>
#include <chrono>
#include <fstream>
#include <random>
#include <thread>

#include "base/file_lock.h"
#include "base/log.h"
#include "base/poll.h"
#include "net/sandbox_network.h"

namespace stasis::net {
namespace {

constexpr std::chrono::seconds kLockDeadline{10};  // held for a few milliseconds at a time
constexpr unsigned kSlotPrefix = 30;
constexpr char kPrefixOfNames[] = "stasis";

// Replaced as a whole in one transaction, so that it may be applied while other sandboxes use it.
constexpr char kHostRules[] = R"(
add table inet stasis
delete table inet stasis
table inet stasis {
  chain input {
    type filter hook input priority -10; policy accept;
    iifname "stasis*" drop
  }
  chain forward {
    type filter hook forward priority -10; policy accept;
    iifname "stasis*" meta nfproto != ipv4 drop
    iifname "stasis*" ip saddr != 10.201.0.0/16 drop
    iifname "stasis*" ip daddr { 0.0.0.0/8, 10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 168.63.129.16, 169.254.0.0/16,
                                 172.16.0.0/12, 192.0.0.0/24, 192.168.0.0/16, 198.18.0.0/15, 224.0.0.0/3 } drop
    iifname "stasis*" oifname "stasis*" drop
    oifname "stasis*" ct state established,related accept
    oifname "stasis*" drop
  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr 10.201.0.0/16 oifname != "stasis*" masquerade
  }
}
)";

constexpr char kSandboxRules[] = R"(
table inet stasis {
  chain input {
    type filter hook input priority 0; policy accept;
    iifname "out0" drop
  }
  chain forward {
    type filter hook forward priority 0; policy drop;
    iifname "tap0" oifname "out0" ip saddr 172.30.0.2 accept
    iifname "out0" oifname "tap0" ct state established,related accept
  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    oifname "out0" masquerade
  }
}
)";

std::string name_of(uint32_t slot) { return kPrefixOfNames + std::to_string(slot); }

Ipv4Address host_end(uint32_t slot) { return {ipv4(10, 201, 0, 0).value + slot * 4 + 1}; }
Ipv4Address sandbox_end(uint32_t slot) { return {host_end(slot).value + 1}; }

bool is_ours(const std::string& interface) {
  constexpr size_t kPrefixLength = sizeof kPrefixOfNames - 1;
  return interface.starts_with(kPrefixOfNames) && interface.size() > kPrefixLength &&
         std::all_of(interface.begin() + kPrefixLength, interface.end(), [](char c) { return c >= '0' && c <= '9'; });
}

}  // namespace

Result<std::unique_ptr<HostNetwork>> HostNetwork::open(Path lock_file) {
  STASIS_ASSIGN(const bool forwards, forwards_ipv4());
  if (!forwards) {
    return fail(Code::kFailedPrecondition, "this host does not forward IPv4, so sandboxes have no way out",
                "sysctl -w net.ipv4.ip_forward=1");
  }
  STASIS_ASSIGN(RouteSocket routes, RouteSocket::open());
  STASIS_ASSIGN(Firewall firewall, Firewall::open());
  return std::unique_ptr<HostNetwork>(new HostNetwork(std::move(lock_file), std::move(routes), std::move(firewall)));
}

Result<UniqueFd> HostNetwork::lock() const {
  const Deadline deadline = Deadline::after(kLockDeadline);
  for (;;) {
    auto held = lock_file(lock_file_, LockKind::kTryExclusive);
    if (held || held.error().code != Code::kAborted) return held;
    if (deadline.passed()) return fail(Code::kDeadlineExceeded, lock_file_.string() + " stays locked");
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

// The name of the interface is the claim on the slot: the kernel gives it to one.
Result<uint32_t> HostNetwork::take_slot() {
  std::random_device random;
  const uint32_t first = random() % kEgressSlots;
  for (uint32_t i = 0; i < kEgressSlots; ++i) {
    const uint32_t slot = (first + i) % kEgressSlots;
    const Status made = routes_.create_veth(name_of(slot), kOutsideName);
    if (made) return slot;
    if (made.error().code != Code::kAlreadyExists) return fail(made.error());
  }
  return fail(Code::kResourceExhausted, "all " + std::to_string(kEgressSlots) + " network slots are taken");
}

Status HostNetwork::remove_unused_table() {
  STASIS_ASSIGN(const auto interfaces, routes_.interfaces());
  if (std::any_of(interfaces.begin(), interfaces.end(), is_ours)) return {};
  return firewall_.apply("add table inet stasis\ndelete table inet stasis");
}

Status HostNetwork::sweep() {
  STASIS_ASSIGN(const UniqueFd held, lock());
  return remove_unused_table();
}

Result<std::unique_ptr<Egress>> Egress::create(HostNetwork& host) {
  STASIS_ASSIGN(RouteSocket inside, RouteSocket::open());
  STASIS_ASSIGN(const auto interfaces, inside.interfaces());
  if (std::find(interfaces.begin(), interfaces.end(), kOutsideName) != interfaces.end()) {
    return fail(Code::kAlreadyExists, std::string("this sandbox has a way out already: ") + kOutsideName);
  }
  STASIS_ASSIGN(UniqueFd held, host.lock());
  // Rules before the interface: a sandbox is never outside without them.
  STASIS_TRY_CONTEXT(host.firewall_.apply(kHostRules), "set up the host's rules");
  auto slot = host.take_slot();
  if (!slot) {
    (void)host.remove_unused_table();
    return fail(std::move(slot).error().with_context("set up the way out"));
  }
  std::unique_ptr<Egress> egress(new Egress(host, *slot));
  Status status = egress->set_up(inside);
  held.reset();  // the destructor takes the lock itself
  if (!status) return fail(std::move(status).error().with_context("set up the way out"));
  return egress;
}

Status Egress::set_up(RouteSocket& inside) {
  if (exists(real_file_system(), "/proc/sys/net/ipv6")) {
    STASIS_TRY(host_.routes_.no_automatic_ipv6(host_interface()));
  }
  STASIS_TRY(host_.routes_.add_address(host_interface(), host_end(slot_), kSlotPrefix));
  STASIS_TRY(host_.routes_.bring_up(host_interface()));
  STASIS_ASSIGN(Firewall firewall, Firewall::open());
  STASIS_TRY_CONTEXT(firewall.apply(kSandboxRules), "set up the sandbox's rules");
  STASIS_TRY(disable_ipv6(kOutsideName));
  STASIS_TRY(set_ipv4_address(kOutsideName, sandbox_end(slot_), kSlotPrefix));
  STASIS_TRY(bring_interface_up(kOutsideName));
  STASIS_TRY(inside.add_default_route(host_end(slot_)));
  return enable_ipv4_forwarding();
}

Egress::~Egress() {
  const auto held = host_.lock();
  if (!held) spdlog::warn("remove {}: {}", host_interface(), held.error().message);
  Status removed = host_.routes_.remove(host_interface());
  const bool gone = removed || removed.error().code == Code::kNotFound;  // with its namespace
  if (gone && held) removed = host_.remove_unused_table();
  if (!removed && removed.error().code != Code::kNotFound) spdlog::warn("{}", removed.error().message);
}

Ipv4Address Egress::address() const { return sandbox_end(slot_); }

std::string Egress::host_interface() const { return name_of(slot_); }

}  // namespace stasis::net
