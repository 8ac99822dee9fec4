// Network interfaces of the calling thread's network namespace, and sockets in it. Everything needs CAP_NET_ADMIN
// there, except what only looks: without it the answer is kPermissionDenied. Interface names are at most 15 bytes.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace stasis {

struct MacAddress {
  std::array<uint8_t, 6> octets{};
  std::string text() const;  // "06:00:ac:1e:00:02"
  friend bool operator==(const MacAddress&, const MacAddress&) = default;
};

struct Ipv4Address {
  uint32_t value = 0;  // host byte order: 172.30.0.1 is 0xac1e0001
  std::string text() const;
  friend bool operator==(const Ipv4Address&, const Ipv4Address&) = default;
};

constexpr Ipv4Address ipv4(uint8_t a, uint8_t b, uint8_t c, uint8_t d) {
  return {uint32_t{a} << 24 | uint32_t{b} << 16 | uint32_t{c} << 8 | uint32_t{d}};
}

// "172.30.0.2"; kInvalidArgument for anything else.
Result<Ipv4Address> parse_ipv4(const std::string& text);

// Makes a tap device (whole Ethernet frames, no packet information, virtio-net headers) that stays until its namespace
// goes, and keeps no descriptor: a VMM opens it by name. kAlreadyExists if there is an interface of this name.
Status create_tap(std::string_view name);
// Sets the hardware address; the interface must be down.
Status set_mac_address(std::string_view name, const MacAddress& mac);
Status set_ipv4_address(std::string_view name, Ipv4Address address, unsigned prefix_length);
Status bring_interface_up(std::string_view name);
// Turns IPv6 off on one interface (no link-local address either). Success if the kernel has no IPv6.
Status disable_ipv6(std::string_view name);
// Whether packets are routed from one interface to another; switching it on does so for all interfaces of the
// namespace.
Result<bool> forwards_ipv4();
Status enable_ipv4_forwarding();
// A permanent entry in the neighbour table: nobody is asked where `address` is.
Status add_neighbour(std::string_view name, Ipv4Address address, const MacAddress& mac);
// Names of the interfaces that are up, sorted.
Result<std::vector<std::string>> interfaces_up();

enum class Transport { kTcp, kUdp };

// A socket (IPv4, blocking, close-on-exec), not connected. It stays in the namespace that it was made in, whoever
// connects it.
Result<UniqueFd> ip_socket(Transport transport);

}  // namespace stasis
