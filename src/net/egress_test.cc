// The way out, on a small model of the world: one child process that moves between network namespaces of its own.
//
//   guest --cable-- sandbox (tap0, out0) --- host (stasisN, up0) --- world (in0)
//
// The cable copies frames between a tap of the guest's and the sandbox's tap0, as a VMM does. The world has a public
// address and some that guests must not reach although the host has routes to them.
#include "net/egress.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <thread>

#include "base/namespaces.h"
#include "base/poll.h"
#include "base/testing/in_child.h"
#include "base/testing/temp_dir.h"
#include "net/sandbox_network.h"

namespace stasis::net {
namespace {

constexpr uint16_t kPort = 8080;
constexpr Ipv4Address kHostPublic = ipv4(198, 51, 100, 1);
constexpr Ipv4Address kWorldPublic = ipv4(198, 51, 100, 2);

template <typename T>
T must(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().message);
  return std::move(result).value();
}
void must(const Status& status) {
  if (!status) throw std::runtime_error(status.error().message);
}
void check(bool condition, const std::string& what) {
  if (!condition) throw std::runtime_error(what);
}

// A network namespace that this process can come back to.
class Namespace {
 public:
  // The process is in it afterwards.
  Namespace() {
    must(enter_private_network_namespace());
    must(bring_interface_up("lo"));
    fd_.reset(::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
  }
  void enter() const { check(::setns(fd_.get(), CLONE_NEWNET) == 0, "setns"); }

 private:
  UniqueFd fd_;
};

UniqueFd open_tap(const char* name) {
  UniqueFd fd(::open("/dev/net/tun", O_RDWR | O_CLOEXEC));
  ifreq request{};
  std::strcpy(request.ifr_name, name);
  request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  check(fd && ::ioctl(fd.get(), TUNSETIFF, &request) == 0, "open tap");
  return fd;
}

// Copies frames between two taps until it is destroyed.
class Cable {
 public:
  Cable(UniqueFd a, UniqueFd b) : a_(std::move(a)), b_(std::move(b)), thread_([this] { copy(); }) {}
  ~Cable() {
    stop_.set();
    thread_.join();
  }
  Cable(const Cable&) = delete;
  Cable& operator=(const Cable&) = delete;

 private:
  void copy() {
    char frame[2048];
    for (;;) {
      pollfd fds[] = {{a_.get(), POLLIN, 0}, {b_.get(), POLLIN, 0}, {stop_.fd(), POLLIN, 0}};
      if (::poll(fds, 3, -1) < 0 || fds[2].revents != 0) return;
      for (int i = 0; i < 2; ++i) {
        if (fds[i].revents == 0) continue;
        const ssize_t n = ::read(fds[i].fd, frame, sizeof frame);
        if (n > 0) (void)!::write(fds[1 - i].fd, frame, static_cast<size_t>(n));
      }
    }
  }

  UniqueFd a_;
  UniqueFd b_;
  Event stop_ = must(Event::create());
  std::thread thread_;
};

sockaddr_in socket_address(Ipv4Address address) {
  sockaddr_in result{};
  result.sin_family = AF_INET;
  result.sin_port = htons(kPort);
  result.sin_addr.s_addr = htonl(address.value);
  return result;
}

// Listens on every address of the namespace that the process is in.
UniqueFd listen_here() {
  UniqueFd fd = must(ip_socket(Transport::kTcp));
  const sockaddr_in address = socket_address({0});
  const auto* any = reinterpret_cast<const sockaddr*>(&address);
  check(::bind(fd.get(), any, sizeof address) == 0 && ::listen(fd.get(), 16) == 0, "listen");
  return fd;
}

// True if a connection from where the process is to `address` is made in time.
bool reaches(Ipv4Address address, int milliseconds) {
  const UniqueFd fd = must(ip_socket(Transport::kTcp));
  ::fcntl(fd.get(), F_SETFL, O_NONBLOCK);
  const sockaddr_in to = socket_address(address);
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to) == 0) return true;
  if (errno != EINPROGRESS) return false;
  pollfd polled = {fd.get(), POLLOUT, 0};
  if (::poll(&polled, 1, milliseconds) != 1) return false;
  int error = 0;
  socklen_t length = sizeof error;
  ::getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &length);
  return error == 0;
}

Ipv4Address peer_of_next_connection(int listener) {
  sockaddr_in peer{};
  socklen_t length = sizeof peer;
  const UniqueFd fd(::accept4(listener, reinterpret_cast<sockaddr*>(&peer), &length, SOCK_CLOEXEC));
  check(fd.valid(), "accept");
  return {ntohl(peer.sin_addr.s_addr)};
}

// Not reached although the host reaches them: private, shared, link-local with metadata.
const std::vector<Ipv4Address> kForbidden = {ipv4(10, 1, 2, 3),   ipv4(172, 16, 0, 9),      ipv4(192, 168, 7, 7),
                                             ipv4(100, 64, 1, 1), ipv4(169, 254, 169, 254), ipv4(168, 63, 129, 16),
                                             ipv4(192, 0, 0, 192)};

// The host and the world beyond it; the process is in the host's namespace afterwards.
struct World {
  World() {
    auto link = must(RouteSocket::open());  // of the outer namespace
    must(link.add_address("lo", ipv4(203, 0, 113, 7), 32));
    listener = listen_here();
    for (const Ipv4Address address : kForbidden) must(link.add_address("lo", address, 32));
    host = std::make_unique<Namespace>();
    must(link.create_veth("in0", "up0"));
    must(link.add_address("in0", kWorldPublic, 24));
    must(link.bring_up("in0"));
    must(set_ipv4_address("up0", kHostPublic, 24));
    must(bring_interface_up("up0"));
    must(must(RouteSocket::open()).add_default_route(kWorldPublic));
    must(enable_ipv4_forwarding());
    host_listener = listen_here();
  }
  Namespace outer;  // first: the process must be in it
  UniqueFd listener;
  std::unique_ptr<Namespace> host;
  UniqueFd host_listener;
};

// A sandbox with a way out, and a guest in it.
struct Sandbox {
  Sandbox(const World& world, HostNetwork& host) {
    (void)must(set_up_sandbox_network());
    auto tap = open_tap(kTapName);
    egress = must(Egress::create(host));
    listener = listen_here();
    guest = std::make_unique<Namespace>();
    must(create_tap("eth0"));
    must(set_mac_address("eth0", kGuestMac));
    must(set_ipv4_address("eth0", kGuestAddress, kPrefixLength));
    must(bring_interface_up("eth0"));
    must(must(RouteSocket::open()).add_default_route(kHostAddress));
    cable = std::make_unique<Cable>(open_tap("eth0"), std::move(tap));
    world.host->enter();
  }
  Namespace inside;  // first: made, and entered
  std::unique_ptr<Egress> egress;
  UniqueFd listener;
  std::unique_ptr<Namespace> guest;
  std::unique_ptr<Cable> cable;
};

class EgressTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root";
    if (::access("/dev/net/tun", F_OK) != 0) GTEST_SKIP() << "needs /dev/net/tun";
  }
  void in_model(const std::function<void()>& body) {
    EXPECT_EQ(testing::in_child([&]() -> std::string {
                ::alarm(60);
                body();
                return "";
              }),
              "");
  }
  Path lock() const { return dir_.path() / "lock"; }

  testing::TempDir dir_;
};

TEST_F(EgressTest, AGuestReachesThePublicInternetAsTheHost) {
  in_model([&] {
    const World world;
    const auto host = must(HostNetwork::open(lock()));
    const Sandbox sandbox(world, *host);
    sandbox.guest->enter();
    check(reaches(kWorldPublic, 5000), "the guest does not reach the world");
    check(peer_of_next_connection(world.listener.get()) == kHostPublic, "not translated to the host's address");
    check(reaches(ipv4(203, 0, 113, 7), 5000), "the guest does not reach beyond the next network");
    check((sandbox.egress->address().value & 0xffff0000) == ipv4(10, 201, 0, 0).value, "slot address");
  });
}

TEST_F(EgressTest, AGuestReachesNothingElse) {
  in_model([&] {
    const World world;
    const auto host = must(HostNetwork::open(lock()));
    const Sandbox first(world, *host);
    const Sandbox second(world, *host);
    check(first.egress->host_interface() != second.egress->host_interface(), "the same slot twice");
    std::vector<Ipv4Address> targets = kForbidden;
    for (const Ipv4Address address : targets) check(reaches(address, 5000), "the host must reach " + address.text());
    const Ipv4Address host_end{first.egress->address().value - 1};
    targets.insert(targets.end(), {kHostPublic, host_end, second.egress->address()});
    check(reaches(kHostPublic, 1000) && reaches(host_end, 1000), "the host must reach itself");
    first.guest->enter();
    check(reaches(kWorldPublic, 5000), "the guest does not reach the world");
    for (const Ipv4Address address : targets) check(!reaches(address, 300), "the guest reaches " + address.text());
  });
}

TEST_F(EgressTest, NobodyOpensAConnectionToASandbox) {
  in_model([&] {
    const World world;
    const auto host = must(HostNetwork::open(lock()));
    const Sandbox sandbox(world, *host);
    check(!reaches(sandbox.egress->address(), 300), "the host reaches the sandbox");
    world.outer.enter();
    must(must(RouteSocket::open()).add_default_route(kHostPublic));
    check(!reaches(sandbox.egress->address(), 300), "the world reaches the sandbox");
  });
}

bool has_table(Firewall& firewall) { return firewall.apply("list table inet stasis").has_value(); }

TEST_F(EgressTest, RemovalLeavesNothing) {
  in_model([&] {
    const World world;
    const auto before = must(must(RouteSocket::open()).interfaces());
    const auto host = must(HostNetwork::open(lock()));
    auto rules = must(Firewall::open());
    auto links = must(RouteSocket::open());
    auto first = std::make_unique<Sandbox>(world, *host);
    auto second = std::make_unique<Sandbox>(world, *host);
    check(must(links.interfaces()).size() == before.size() + 2, "two interfaces");
    first->egress.reset();
    check(has_table(rules), "the rules went while a sandbox was outside");
    second->guest->enter();
    check(reaches(kWorldPublic, 5000), "the other sandbox lost its way out");
    second->egress.reset();
    check(!has_table(rules), "the rules stay");
    check(must(links.interfaces()) == before, "an interface stays");
  });
}

TEST_F(EgressTest, SweepRemovesWhatAKilledProcessLeft) {
  in_model([&] {
    const World world;
    const auto host = must(HostNetwork::open(lock()));
    auto rules = must(Firewall::open());
    must(rules.apply("add table inet stasis"));
    must(host->sweep());
    check(!has_table(rules), "the table stays");
    const Sandbox sandbox(world, *host);
    must(host->sweep());
    check(has_table(rules), "the table of a sandbox in use was swept");
  });
}

TEST_F(EgressTest, SaysWhatIsMissing) {
  in_model([&] {
    const Namespace plain;
    const Path setting = "/proc/sys/net/ipv4/ip_forward";
    const UniqueFd fd(::open(setting.c_str(), O_WRONLY | O_CLOEXEC));
    check(::write(fd.get(), "0", 1) == 1, "write ip_forward");
    const auto host = HostNetwork::open(lock());
    check(!host && host.error().code == Code::kFailedPrecondition, "opened without forwarding");
    check(host.error().remedy.find("ip_forward=1") != std::string::npos, host.error().remedy);
  });
}

TEST_F(EgressTest, ASecondWayOutIsRefused) {
  in_model([&] {
    const World world;
    const auto host = must(HostNetwork::open(lock()));
    const Sandbox sandbox(world, *host);
    sandbox.inside.enter();
    const auto again = Egress::create(*host);
    check(!again && again.error().code == Code::kAlreadyExists, "a second way out was made");
  });
}

}  // namespace
}  // namespace stasis::net
