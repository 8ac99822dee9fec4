#include "base/network.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <set>

namespace stasis {
namespace {

std::string at(std::string_view what, std::string_view name) { return std::string(what) + " " + std::string(name); }

Result<ifreq> request_for(std::string_view name) {
  ifreq request{};
  if (name.empty() || name.size() >= sizeof request.ifr_name) {
    return fail(Code::kInvalidArgument, at("not an interface name:", name));
  }
  std::memcpy(request.ifr_name, name.data(), name.size());
  return request;
}

sockaddr_in socket_address(Ipv4Address address) {
  sockaddr_in result{};
  result.sin_family = AF_INET;
  result.sin_addr.s_addr = htonl(address.value);
  return result;
}

// The socket that interface ioctls go through; any kind does.
Result<UniqueFd> control_socket() {
  UniqueFd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!fd) return fail_errno(errno, "make socket");
  return fd;
}

template <typename Request>
Status control(unsigned long operation, Request& request, std::string_view what, std::string_view name) {
  STASIS_ASSIGN(const UniqueFd fd, control_socket());
  if (::ioctl(fd.get(), operation, &request) == 0) return {};
  Error error = errno_error(errno, at(what, name));
  if (error.code == Code::kPermissionDenied) error.remedy = "run as root (CAP_NET_ADMIN is needed)";
  return fail(std::move(error));
}

Result<UniqueFd> open_tun() {
  UniqueFd fd(::open("/dev/net/tun", O_RDWR | O_CLOEXEC));
  if (fd) return fd;
  Error error = errno_error(errno, "open /dev/net/tun");
  error.remedy = error.code == Code::kPermissionDenied ? "run as root" : "load the kernel module: modprobe tun";
  return fail(std::move(error));
}

constexpr char kForwarding[] = "/proc/sys/net/ipv4/ip_forward";

Status write_setting(const std::string& path, std::string_view value) {
  const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (!fd || ::write(fd.get(), value.data(), value.size()) != static_cast<ssize_t>(value.size())) {
    return fail_errno(errno, "write " + path);
  }
  return {};
}

}  // namespace

std::string MacAddress::text() const {
  char text[18];
  std::snprintf(text, sizeof text, "%02x:%02x:%02x:%02x:%02x:%02x", octets[0], octets[1], octets[2], octets[3],
                octets[4], octets[5]);
  return text;
}

std::string Ipv4Address::text() const {
  char text[16];
  std::snprintf(text, sizeof text, "%u.%u.%u.%u", value >> 24, value >> 16 & 255, value >> 8 & 255, value & 255);
  return text;
}

Status create_tap(std::string_view name) {
  STASIS_ASSIGN(ifreq request, request_for(name));
  STASIS_ASSIGN(const UniqueFd fd, open_tun());
  request.ifr_flags = static_cast<short>(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_TUN_EXCL);
  if (::ioctl(fd.get(), TUNSETIFF, &request) != 0) {
    if (errno == EBUSY || errno == EINVAL) return fail(Code::kAlreadyExists, at("there is an interface", name));
    Error error = errno_error(errno, at("create tap device", name));
    if (error.code == Code::kPermissionDenied) error.remedy = "run as root (CAP_NET_ADMIN is needed)";
    return fail(std::move(error));
  }
  if (::ioctl(fd.get(), TUNSETPERSIST, 1) != 0) return fail_errno(errno, at("keep tap device", name));
  return {};
}

Status set_mac_address(std::string_view name, const MacAddress& mac) {
  STASIS_ASSIGN(ifreq request, request_for(name));
  request.ifr_hwaddr.sa_family = ARPHRD_ETHER;
  std::memcpy(request.ifr_hwaddr.sa_data, mac.octets.data(), mac.octets.size());
  return control(SIOCSIFHWADDR, request, "set hardware address of", name);
}

Status set_ipv4_address(std::string_view name, Ipv4Address address, unsigned prefix_length) {
  if (prefix_length == 0 || prefix_length > 32) return fail(Code::kInvalidArgument, at("prefix length for", name));
  STASIS_ASSIGN(ifreq request, request_for(name));
  const sockaddr_in socket = socket_address(address);
  std::memcpy(&request.ifr_addr, &socket, sizeof socket);
  STASIS_TRY(control(SIOCSIFADDR, request, "set address of", name));
  const sockaddr_in mask = socket_address({~uint32_t{0} << (32 - prefix_length)});
  std::memcpy(&request.ifr_netmask, &mask, sizeof mask);
  return control(SIOCSIFNETMASK, request, "set netmask of", name);
}

Status bring_interface_up(std::string_view name) {
  STASIS_ASSIGN(ifreq request, request_for(name));
  STASIS_TRY(control(SIOCGIFFLAGS, request, "look at interface", name));
  request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP);
  return control(SIOCSIFFLAGS, request, "bring up", name);
}

Status disable_ipv6(std::string_view name) {
  STASIS_TRY(request_for(name));
  const std::string path = "/proc/sys/net/ipv6/conf/" + std::string(name) + "/disable_ipv6";
  Status written = write_setting(path, "1");
  if (!written && written.error().code == Code::kNotFound) return {};
  return written;
}

Result<bool> forwards_ipv4() {
  const UniqueFd fd(::open(kForwarding, O_RDONLY | O_CLOEXEC));
  char value = 0;
  if (!fd || ::read(fd.get(), &value, 1) != 1) return fail_errno(errno, std::string("read ") + kForwarding);
  return value == '1';
}

Status enable_ipv4_forwarding() { return write_setting(kForwarding, "1"); }

Status add_neighbour(std::string_view name, Ipv4Address address, const MacAddress& mac) {
  STASIS_TRY(request_for(name));
  arpreq request{};
  const sockaddr_in socket = socket_address(address);
  std::memcpy(&request.arp_pa, &socket, sizeof socket);
  request.arp_ha.sa_family = ARPHRD_ETHER;
  std::memcpy(request.arp_ha.sa_data, mac.octets.data(), mac.octets.size());
  request.arp_flags = ATF_COM | ATF_PERM;
  std::memcpy(request.arp_dev, name.data(), name.size());
  return control(SIOCSARP, request, "add neighbour on", name);
}

Result<std::vector<std::string>> interfaces_up() {
  ifaddrs* head = nullptr;
  if (::getifaddrs(&head) != 0) return fail_errno(errno, "list interfaces");
  const std::unique_ptr<ifaddrs, void (*)(ifaddrs*)> owner(head, ::freeifaddrs);
  std::set<std::string> names;
  for (const ifaddrs* entry = head; entry != nullptr; entry = entry->ifa_next) {
    if ((entry->ifa_flags & IFF_UP) != 0) names.insert(entry->ifa_name);
  }
  return std::vector<std::string>(names.begin(), names.end());
}

Result<UniqueFd> ip_socket(Transport transport) {
  const int type = transport == Transport::kTcp ? SOCK_STREAM : SOCK_DGRAM;
  UniqueFd fd(::socket(AF_INET, type | SOCK_CLOEXEC, 0));
  if (!fd) return fail_errno(errno, "make a socket");
  return fd;
}

Result<Ipv4Address> parse_ipv4(const std::string& text) {
  in_addr address{};
  if (::inet_pton(AF_INET, text.c_str(), &address) != 1)
    return fail(Code::kInvalidArgument, "'" + text + "' is not an IPv4 address");
  return Ipv4Address{ntohl(address.s_addr)};
}

}  // namespace stasis
