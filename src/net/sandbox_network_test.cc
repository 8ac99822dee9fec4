#include "net/sandbox_network.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <ifaddrs.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <set>

#include "base/namespaces.h"
#include "base/poll.h"
#include "base/testing/in_child.h"

namespace stasis::net {
namespace {

using stasis::testing::in_child;

std::string set_up() {
  if (Status status = enter_private_network_namespace(); !status) return status.error().message;
  auto network = set_up_sandbox_network();
  return network ? "" : network.error().message;
}

std::string address_of(const std::string& name) {
  ifaddrs* head = nullptr;
  if (::getifaddrs(&head) != 0) return "getifaddrs failed";
  std::string found;
  for (const ifaddrs* entry = head; entry != nullptr; entry = entry->ifa_next) {
    if (name != entry->ifa_name || entry->ifa_addr == nullptr) continue;
    char text[INET6_ADDRSTRLEN] = "";
    if (entry->ifa_addr->sa_family == AF_INET) {
      ::inet_ntop(AF_INET, &reinterpret_cast<sockaddr_in*>(entry->ifa_addr)->sin_addr, text, sizeof text);
      found += std::string(text) + "/";
      ::inet_ntop(AF_INET, &reinterpret_cast<sockaddr_in*>(entry->ifa_netmask)->sin_addr, text, sizeof text);
      found += text;
    } else if (entry->ifa_addr->sa_family == AF_INET6) {
      found += " and IPv6";
    }
  }
  ::freeifaddrs(head);
  return found;
}

std::string check_interfaces() {
  if (std::string error = set_up(); !error.empty()) return error;
  auto up = interfaces_up();
  if (!up || *up != std::vector<std::string>{"lo", "tap0"}) return "other interfaces are up than lo and tap0";
  return address_of("tap0");
}

// Opens the tap as a VMM does.
UniqueFd open_tap() {
  UniqueFd fd(::open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK));
  ifreq request{};
  std::strcpy(request.ifr_name, kTapName);
  request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  if (!fd || ::ioctl(fd.get(), TUNSETIFF, &request) != 0) return UniqueFd();
  return fd;
}

bool send_udp(const char* address) {
  const UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(49983);
  ::inet_pton(AF_INET, address, &to.sin_addr);
  return ::sendto(socket.get(), "hello", 5, 0, reinterpret_cast<sockaddr*>(&to), sizeof to) == 5;
}

std::string check_first_frame() {
  if (std::string error = set_up(); !error.empty()) return error;
  const UniqueFd tap = open_tap();
  if (!tap) return "the tap cannot be opened by name";
  if (send_udp("10.0.0.1")) return "there is a route out";
  // The kernel drops what is sent before it has noticed, in the background, that the tap has been opened.
  bool arrived = false;
  for (int attempt = 0; attempt < 100 && !arrived; ++attempt) {
    if (!send_udp("172.30.0.2")) return "no route to the guest";
    arrived = wait_readable(tap.get(), Deadline::after(std::chrono::milliseconds(100))).value_or(false);
  }
  if (!arrived) return "no frame";
  unsigned char frame[2048];
  constexpr size_t kVnetHeader = 10;
  const ssize_t n = ::read(tap.get(), frame, sizeof frame);
  if (n < static_cast<ssize_t>(kVnetHeader + 14 + 20 + 8 + 5)) return "short frame";
  const unsigned char* ethernet = frame + kVnetHeader;
  if (std::memcmp(ethernet, kGuestMac.octets.data(), 6) != 0) return "frame is not for the guest's address";
  if (std::memcmp(ethernet + 6, kHostMac.octets.data(), 6) != 0) return "frame is not from the host's address";
  if (ethernet[12] != 0x08 || ethernet[13] != 0x00) return "the first frame is not IPv4: ARP was needed";
  return "";
}

class SandboxNetworkTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root";
    if (::access("/dev/net/tun", F_OK) != 0) GTEST_SKIP() << "needs /dev/net/tun";
  }
};

TEST_F(SandboxNetworkTest, OnlyLoopbackAndTheTapAreUp) {
  EXPECT_EQ(in_child(check_interfaces), "172.30.0.1/255.255.255.252");
}

TEST_F(SandboxNetworkTest, EachNamespaceHasItsOwn) {
  EXPECT_EQ(in_child([] {
              const std::string first = check_interfaces();
              return first + " " + check_interfaces();  // set_up() enters another namespace
            }),
            "172.30.0.1/255.255.255.252 172.30.0.1/255.255.255.252");
}

TEST_F(SandboxNetworkTest, FirstPacketReachesTheGuestWithoutArp) { EXPECT_EQ(in_child(check_first_frame), ""); }

TEST_F(SandboxNetworkTest, RefusesANamespaceInUse) {
  EXPECT_EQ(in_child([]() -> std::string {
              if (std::string error = set_up(); !error.empty()) return error;
              auto again = set_up_sandbox_network();
              return again ? "second set-up went through" : std::string(code_name(again.error().code));
            }),
            "failed_precondition");
}

TEST_F(SandboxNetworkTest, WithoutRootItSaysSo) {
  EXPECT_EQ(in_child([]() -> std::string {
              if (!enter_private_network_namespace()) return "namespace";
              if (::setresuid(65534, 65534, 65534) != 0) return "setresuid";
              auto network = set_up_sandbox_network();
              if (network) return "went through";
              return std::string(code_name(network.error().code)) + ", " + network.error().remedy;
            }),
            "permission_denied, run as root (CAP_NET_ADMIN is needed)");
}

TEST_F(SandboxNetworkTest, NothingAppearsInTheCallersNamespace) {
  auto names = [] {
    std::set<std::string> result;
    struct if_nameindex* list = ::if_nameindex();
    for (auto* entry = list; entry != nullptr && entry->if_index != 0; ++entry) result.insert(entry->if_name);
    ::if_freenameindex(list);
    return result;
  };
  const std::set<std::string> before = names();
  EXPECT_EQ(in_child(set_up), "");
  EXPECT_EQ(names(), before);
}

TEST(NetworkNames, AreChecked) {
  EXPECT_EQ(create_tap("").error().code, Code::kInvalidArgument);
  EXPECT_EQ(create_tap("sixteen-bytes-xx").error().code, Code::kInvalidArgument);
  EXPECT_EQ(bring_interface_up("sixteen-bytes-xx").error().code, Code::kInvalidArgument);
  EXPECT_EQ(kGuestMac.text(), "06:00:ac:1e:00:02");
  EXPECT_EQ(kGuestAddress.text(), "172.30.0.2");
}

TEST(TcpSocket, IsCloseOnExec) {
  auto socket = ip_socket(Transport::kTcp);
  ASSERT_TRUE(socket);
  EXPECT_EQ(::fcntl(socket->get(), F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
}

}  // namespace
}  // namespace stasis::net
