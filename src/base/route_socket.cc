#include "base/route_socket.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <libmnl/libmnl.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "base/fd.h"

namespace stasis {
namespace {

using Buffer = std::array<char, 8192>;  // what libmnl recommends (MNL_SOCKET_BUFFER_SIZE) at most

Status check_name(const std::string& name) {
  if (!name.empty() && name.size() < IFNAMSIZ) return {};
  return fail(Code::kInvalidArgument, "not an interface name: " + name);
}

int take_name(const nlattr* attribute, void* data) {
  if (mnl_attr_get_type(attribute) != IFLA_IFNAME) return MNL_CB_OK;
  if (mnl_attr_validate(attribute, MNL_TYPE_NUL_STRING) < 0) return MNL_CB_ERROR;
  static_cast<std::vector<std::string>*>(data)->emplace_back(mnl_attr_get_str(attribute));
  return MNL_CB_STOP;
}

int collect_name(const nlmsghdr* header, void* data) {
  return mnl_attr_parse(header, sizeof(ifinfomsg), take_name, data) < 0 ? MNL_CB_ERROR : MNL_CB_OK;
}

int take_index(const nlmsghdr* header, void* data) {
  *static_cast<int*>(data) = static_cast<const ifinfomsg*>(mnl_nlmsg_get_payload(header))->ifi_index;
  return MNL_CB_OK;
}

}  // namespace

// One message under construction.
class RouteSocket::Request {
 public:
  Request(uint16_t type, uint16_t flags) : header_(mnl_nlmsg_put_header(buffer_.data())) {
    header_->nlmsg_type = type;
    header_->nlmsg_flags = static_cast<uint16_t>(NLM_F_REQUEST | flags);
  }
  template <typename Payload>
  Payload& payload() {
    return *static_cast<Payload*>(mnl_nlmsg_put_extra_header(header_, sizeof(Payload)));
  }
  nlmsghdr* header() { return header_; }

 private:
  alignas(nlmsghdr) Buffer buffer_{};
  nlmsghdr* header_;
};

void RouteSocket::Close::operator()(mnl_socket* socket) const { mnl_socket_close(socket); }

Result<RouteSocket> RouteSocket::open() {
  RouteSocket result(mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC));
  if (!result.socket_) return fail_errno(errno, "open route socket");
  if (mnl_socket_bind(result.socket_.get(), 0, MNL_SOCKET_AUTOPID) < 0) return fail_errno(errno, "bind route socket");
  return result;
}

namespace {

// Sends one message and runs `callback` on each answer until the last.
Status exchange(mnl_socket* socket, nlmsghdr* message, uint32_t sequence, const std::string& what,
                mnl_cb_t callback = nullptr, void* data = nullptr) {
  message->nlmsg_seq = sequence;
  if (mnl_socket_sendto(socket, message, message->nlmsg_len) < 0) return fail_errno(errno, what);
  Buffer answer;
  for (int next = MNL_CB_OK; next > MNL_CB_STOP;) {
    const ssize_t n = mnl_socket_recvfrom(socket, answer.data(), answer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(errno, what);
    next = mnl_cb_run(answer.data(), static_cast<size_t>(n), sequence, mnl_socket_get_portid(socket), callback, data);
    if (next < 0 && errno == ENODEV) return fail(Code::kNotFound, what + ": no such interface");
    if (next < 0) return fail_errno(errno, what);
  }
  return {};
}

}  // namespace

Status RouteSocket::transact(Request& request, const std::string& what) {
  request.header()->nlmsg_flags |= NLM_F_ACK;
  return exchange(socket_.get(), request.header(), ++sequence_, what);
}

Result<std::vector<std::string>> RouteSocket::interfaces() {
  Request request(RTM_GETLINK, NLM_F_DUMP);
  request.payload<ifinfomsg>().ifi_family = AF_UNSPEC;
  std::vector<std::string> names;
  STASIS_TRY(exchange(socket_.get(), request.header(), ++sequence_, "list interfaces", collect_name, &names));
  return names;
}

Result<uint32_t> RouteSocket::index_of(const std::string& name) {
  STASIS_TRY(check_name(name));
  Request request(RTM_GETLINK, NLM_F_ACK);
  request.payload<ifinfomsg>().ifi_family = AF_UNSPEC;
  mnl_attr_put_strz(request.header(), IFLA_IFNAME, name.c_str());
  int index = 0;
  const std::string what = "look up interface " + name;
  STASIS_TRY(exchange(socket_.get(), request.header(), ++sequence_, what, take_index, &index));
  return static_cast<uint32_t>(index);
}

Status RouteSocket::create_veth(const std::string& name, const std::string& peer) {
  STASIS_TRY(check_name(name));
  STASIS_TRY(check_name(peer));
  const UniqueFd here(::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
  if (!here) return fail_errno(errno, "open /proc/self/ns/net");
  Request request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
  request.payload<ifinfomsg>().ifi_family = AF_UNSPEC;
  nlmsghdr* header = request.header();
  mnl_attr_put_strz(header, IFLA_IFNAME, name.c_str());
  nlattr* link = mnl_attr_nest_start(header, IFLA_LINKINFO);
  mnl_attr_put_strz(header, IFLA_INFO_KIND, "veth");
  nlattr* data = mnl_attr_nest_start(header, IFLA_INFO_DATA);
  nlattr* other = mnl_attr_nest_start(header, VETH_INFO_PEER);
  request.payload<ifinfomsg>().ifi_family = AF_UNSPEC;
  mnl_attr_put_strz(header, IFLA_IFNAME, peer.c_str());
  mnl_attr_put_u32(header, IFLA_NET_NS_FD, static_cast<uint32_t>(here.get()));
  mnl_attr_nest_end(header, other);
  mnl_attr_nest_end(header, data);
  mnl_attr_nest_end(header, link);
  return transact(request, "create interface " + name);
}

Status RouteSocket::no_automatic_ipv6(const std::string& name) {
  STASIS_ASSIGN(const uint32_t index, index_of(name));
  Request request(RTM_SETLINK, 0);
  auto& info = request.payload<ifinfomsg>();
  info.ifi_family = AF_UNSPEC;
  info.ifi_index = static_cast<int>(index);
  nlmsghdr* header = request.header();
  nlattr* families = mnl_attr_nest_start(header, IFLA_AF_SPEC);
  nlattr* ipv6 = mnl_attr_nest_start(header, AF_INET6);
  mnl_attr_put_u8(header, IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE);
  mnl_attr_nest_end(header, ipv6);
  mnl_attr_nest_end(header, families);
  return transact(request, "keep IPv6 off " + name);
}

Status RouteSocket::remove(const std::string& name) {
  STASIS_TRY(check_name(name));
  Request request(RTM_DELLINK, 0);
  request.payload<ifinfomsg>().ifi_family = AF_UNSPEC;
  mnl_attr_put_strz(request.header(), IFLA_IFNAME, name.c_str());
  return transact(request, "remove interface " + name);
}

Status RouteSocket::bring_up(const std::string& name) {
  STASIS_ASSIGN(const uint32_t index, index_of(name));
  Request request(RTM_NEWLINK, 0);
  auto& info = request.payload<ifinfomsg>();
  info.ifi_family = AF_UNSPEC;
  info.ifi_index = static_cast<int>(index);
  info.ifi_flags = IFF_UP;
  info.ifi_change = IFF_UP;
  return transact(request, "bring up " + name);
}

Status RouteSocket::add_address(const std::string& name, Ipv4Address address, unsigned prefix_length) {
  if (prefix_length > 32) return fail(Code::kInvalidArgument, "prefix length for " + name);
  STASIS_ASSIGN(const uint32_t index, index_of(name));
  Request request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL);
  auto& info = request.payload<ifaddrmsg>();
  info.ifa_family = AF_INET;
  info.ifa_prefixlen = static_cast<uint8_t>(prefix_length);
  info.ifa_index = index;
  mnl_attr_put_u32(request.header(), IFA_LOCAL, htonl(address.value));
  mnl_attr_put_u32(request.header(), IFA_ADDRESS, htonl(address.value));
  return transact(request, "add address to " + name);
}

Status RouteSocket::add_default_route(Ipv4Address gateway) {
  Request request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL);
  auto& route = request.payload<rtmsg>();
  route.rtm_family = AF_INET;
  route.rtm_table = RT_TABLE_MAIN;
  route.rtm_protocol = RTPROT_STATIC;
  route.rtm_scope = RT_SCOPE_UNIVERSE;
  route.rtm_type = RTN_UNICAST;
  mnl_attr_put_u32(request.header(), RTA_GATEWAY, htonl(gateway.value));
  return transact(request, "add default route");
}

}  // namespace stasis
