#include "guest/socket.h"

#include <arpa/inet.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <boost/asio/error.hpp>
#include <cerrno>

namespace stasis::guest {
namespace {

constexpr int kUserTimeoutMs = 30'000;
constexpr int kKeepaliveIdleSeconds = 15;
constexpr int kKeepaliveIntervalSeconds = 5;
constexpr int kKeepaliveCount = 3;

void set_option(int fd, int level, int name, int value) { (void)setsockopt(fd, level, name, &value, sizeof(value)); }

boost::system::error_code system_error(int number) { return {number, boost::system::system_category()}; }

// 0 when ready, else the error number.
int wait_for(int fd, short events, std::chrono::milliseconds limit) {
  auto start = std::chrono::steady_clock::now();
  for (;;) {
    auto left = limit - std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - start);
    if (left.count() < 0) return ETIMEDOUT;
    pollfd entry{fd, events, 0};
    int count = poll(&entry, 1, static_cast<int>(std::min<int64_t>(left.count(), 3'600'000)) + 1);
    if (count > 0) return 0;
    if (count < 0 && errno != EINTR) return errno;
  }
}

// Told to a listener, connections inherit them: six calls less for each of them.
void set_options_of_connections(int listener) {
  set_option(listener, IPPROTO_TCP, TCP_NODELAY, 1);
  set_option(listener, IPPROTO_TCP, TCP_USER_TIMEOUT, kUserTimeoutMs);
  set_option(listener, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_option(listener, IPPROTO_TCP, TCP_KEEPIDLE, kKeepaliveIdleSeconds);
  set_option(listener, IPPROTO_TCP, TCP_KEEPINTVL, kKeepaliveIntervalSeconds);
  set_option(listener, IPPROTO_TCP, TCP_KEEPCNT, kKeepaliveCount);
}

// False with errno set.
bool bind_to(int fd, const std::string& address, uint16_t port) {
  sockaddr_in name{};
  name.sin_family = AF_INET;
  name.sin_port = htons(port);
  if (inet_pton(AF_INET, address.c_str(), &name.sin_addr) != 1) {
    errno = EINVAL;
    return false;
  }
  return bind(fd, reinterpret_cast<sockaddr*>(&name), sizeof(name)) == 0;
}

}  // namespace

size_t Socket::receive(void* data, size_t size, boost::system::error_code& error) {
  for (;;) {
    ssize_t count = recv(fd_.get(), data, size, MSG_DONTWAIT);
    if (count > 0) {
      error = {};
      return static_cast<size_t>(count);
    }
    if (count == 0) {
      error = boost::asio::error::eof;
      return 0;
    }
    if (errno == EINTR) continue;
    int problem = errno == EAGAIN ? wait_for(fd_.get(), POLLIN, idle_limit) : errno;
    if (problem != 0) {
      error = system_error(problem);
      return 0;
    }
  }
}

size_t Socket::send(const void* data, size_t size, boost::system::error_code& error) {
  for (;;) {
    ssize_t count = ::send(fd_.get(), data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (count >= 0) {
      error = {};
      written_ += static_cast<uint64_t>(count);
      return static_cast<size_t>(count);
    }
    if (errno == EINTR) continue;
    int problem = errno == EAGAIN ? wait_for(fd_.get(), POLLOUT, write_limit) : errno;
    if (problem != 0) {
      error = system_error(problem);
      return 0;
    }
  }
}

bool Socket::write_all(std::string_view data) {
  while (!data.empty()) {
    boost::system::error_code error;
    size_t count = send(data.data(), data.size(), error);
    if (error) return false;
    data.remove_prefix(count);
  }
  return true;
}

// TCP_USER_TIMEOUT also counts while a peer that answers has no room.
void Socket::let_peer_take_its_time() {
  write_limit = std::chrono::milliseconds::max();
  set_option(fd_.get(), IPPROTO_TCP, TCP_USER_TIMEOUT, 0);
}

uint64_t Socket::acknowledged_bytes() const {
  int waiting = 0;
  if (ioctl(fd_.get(), SIOCOUTQ, &waiting) != 0 || waiting < 0) waiting = 0;
  if (waiting > 0 && shut_down_) --waiting;  // the end of the stream counts as a byte
  return written_ - std::min(written_, static_cast<uint64_t>(waiting));
}

void Socket::shut_down() const {
  shut_down_ = true;
  (void)shutdown(fd_.get(), SHUT_RDWR);
}

UniqueFd listen_on(const std::string& address, uint16_t port) {
  UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd) return fd;
  set_option(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1);
  if (!bind_to(fd.get(), address, port)) return {};
  set_options_of_connections(fd.get());
  if (listen(fd.get(), 128) != 0) return {};
  return fd;
}

UniqueFd take_datagrams_on(const std::string& address, uint16_t port) {
  UniqueFd fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!fd || !bind_to(fd.get(), address, port)) return {};
  return fd;
}

uint16_t bound_port(int fd) {
  sockaddr_in name{};
  socklen_t length = sizeof(name);
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&name), &length) != 0) return 0;
  return ntohs(name.sin_port);
}

}  // namespace stasis::guest
