#include "base/tcp.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>

namespace stasis {
namespace {

Result<bool> wait_writable(int fd, Deadline deadline) {
  pollfd polled{fd, POLLOUT, 0};
  for (;;) {
    const int n = ::poll(&polled, 1, deadline.poll_timeout());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(errno, "poll");
    return n > 0;
  }
}

tl::unexpected<Error> gone(int error_number, const char* what) {
  Error error = errno_error(error_number, what);
  error.code = Code::kUnavailable;
  return fail(std::move(error));
}

}  // namespace

Status connect_tcp(int socket, Ipv4Address address, uint16_t port, Deadline deadline) {
  if (::fcntl(socket, F_SETFL, O_NONBLOCK) != 0) return fail_errno(errno, "make socket non-blocking");
  sockaddr_in target{};
  target.sin_family = AF_INET;
  target.sin_port = htons(port);
  target.sin_addr.s_addr = htonl(address.value);
  if (::connect(socket, reinterpret_cast<const sockaddr*>(&target), sizeof target) == 0) return {};
  if (errno != EINPROGRESS) return gone(errno, "connect to the guest");
  STASIS_ASSIGN(const bool ready, wait_writable(socket, deadline));
  if (!ready) return fail(Code::kDeadlineExceeded, "the guest did not accept a connection in time");
  int error_number = 0;
  socklen_t size = sizeof error_number;
  if (::getsockopt(socket, SOL_SOCKET, SO_ERROR, &error_number, &size) != 0)
    return fail_errno(errno, "read socket error");
  if (error_number != 0) return gone(error_number, "connect to the guest");
  return {};
}

Result<size_t> receive_some(int socket, std::span<std::byte> out, Deadline deadline, int cancel_fd) {
  for (;;) {
    const ssize_t n = ::recv(socket, out.data(), out.size(), MSG_DONTWAIT);
    if (n >= 0) return static_cast<size_t>(n);
    if (errno == EINTR) continue;
    if (errno == ECONNRESET) return gone(errno, "receive from the guest");
    if (errno != EAGAIN) return fail_errno(errno, "receive");
    const std::array fds{socket, cancel_fd};
    STASIS_ASSIGN(const auto ready, wait_any(fds, deadline));
    if (ready[1]) return fail(Code::kCancelled, "cancelled");
    if (!ready[0]) return fail(Code::kDeadlineExceeded, "the guest did not answer in time");
  }
}

Result<size_t> send_some(int socket, std::span<const std::byte> data, Deadline deadline) {
  for (;;) {
    const ssize_t n = ::send(socket, data.data(), data.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n >= 0) return static_cast<size_t>(n);
    if (errno == EINTR) continue;
    if (errno == EPIPE || errno == ECONNRESET) return gone(errno, "send to the guest");
    if (errno != EAGAIN) return fail_errno(errno, "send");
    STASIS_ASSIGN(const bool ready, wait_writable(socket, deadline));
    if (!ready) return fail(Code::kDeadlineExceeded, "the guest took nothing in time");
  }
}

}  // namespace stasis
