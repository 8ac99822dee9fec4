#include "guest/network.h"

#include <fcntl.h>
#include <net/if.h>
#include <net/route.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <vector>

#include "base/fd.h"
#include "guest/kernel_cmdline.h"

namespace stasis::guest {
namespace {

ifreq request_for(const std::string& interface) {
  ifreq request{};
  std::strncpy(request.ifr_name, interface.c_str(), IFNAMSIZ - 1);
  return request;
}

void put_address(sockaddr& into, in_addr address) {
  sockaddr_in name{};
  name.sin_family = AF_INET;
  name.sin_addr = address;
  std::memcpy(&into, &name, sizeof(name));
}

Status bring_up(int fd, const std::string& interface) {
  ifreq request = request_for(interface);
  if (ioctl(fd, SIOCGIFFLAGS, &request) != 0) return fail_errno(errno, "flags of " + interface);
  request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP | IFF_RUNNING);
  if (ioctl(fd, SIOCSIFFLAGS, &request) != 0) return fail_errno(errno, "bring up " + interface);
  return {};
}

// The sandbox's network is IPv4. An address of its own that the kernel looks for neighbours with and announces (now,
// and in each clone of a snapshot that is taken meanwhile) is of no use to anybody.
Status leave_out_ipv6(const std::string& interface) {
  const std::string path = "/proc/sys/net/ipv6/conf/" + interface + "/disable_ipv6";
  UniqueFd fd(open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (!fd && errno == ENOENT) return {};  // a kernel without it
  if (!fd || write(fd.get(), "1\n", 2) != 2) return fail_errno(errno, "write " + path);
  return {};
}

std::string first_interface() {
  std::vector<std::string> names;
  std::error_code error;
  for (std::filesystem::directory_iterator it("/sys/class/net", error), end; !error && it != end; it.increment(error)) {
    if (it->path().filename() != "lo") names.push_back(it->path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names.empty() ? "" : names.front();
}

Status set_address(int fd, const std::string& interface, const AddressWithMask& address) {
  ifreq request = request_for(interface);
  put_address(request.ifr_addr, address.address);
  if (ioctl(fd, SIOCSIFADDR, &request) != 0) return fail_errno(errno, "set address of " + interface);
  put_address(request.ifr_netmask, address.mask);
  if (ioctl(fd, SIOCSIFNETMASK, &request) != 0) return fail_errno(errno, "set netmask of " + interface);
  return {};
}

Status add_default_route(int fd, in_addr gateway) {
  rtentry route{};
  put_address(route.rt_dst, in_addr{});
  put_address(route.rt_genmask, in_addr{});
  put_address(route.rt_gateway, gateway);
  route.rt_flags = RTF_UP | RTF_GATEWAY;
  if (ioctl(fd, SIOCADDRT, &route) != 0 && errno != EEXIST) return fail_errno(errno, "add default route");
  return {};
}

}  // namespace

Status configure_network(const std::string& cidr, const std::string& gateway) {
  UniqueFd fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!fd) return fail_errno(errno, "open a socket to configure the network");
  STASIS_TRY(bring_up(fd.get(), "lo"));
  if (cidr.empty()) return {};
  auto address = parse_cidr(cidr);
  if (!address) return fail(Code::kInvalidArgument, "stasis.ip=" + cidr + " is not ADDRESS/BITS");
  std::string interface = first_interface();
  if (interface.empty()) return fail(Code::kNotFound, "stasis.ip is given, but there is no network interface");
  STASIS_TRY(leave_out_ipv6(interface));
  STASIS_TRY(set_address(fd.get(), interface, *address));
  STASIS_TRY(bring_up(fd.get(), interface));
  if (gateway.empty()) return {};
  auto through = parse_address(gateway);
  if (!through) return fail(Code::kInvalidArgument, "stasis.gw=" + gateway + " is not an address");
  return add_default_route(fd.get(), *through);
}

}  // namespace stasis::guest
