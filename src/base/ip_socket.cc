#include "base/ip_socket.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>

namespace stasis {
namespace {

// Waits until the socket is ready for `events`. Interrupts come first: a stream that never pauses must not hide them.
Status wait_for(int socket, short events, Deadline deadline, Interrupts interrupts, const char* too_late) {
  std::array<pollfd, 1 + kMaxInterrupts> polled{};
  if (interrupts.size() > kMaxInterrupts) return fail(Code::kInternal, "too many interrupts");
  polled[0] = {socket, events, 0};
  for (size_t i = 0; i < interrupts.size(); ++i) polled[1 + i] = {interrupts[i].fd, POLLIN, 0};
  for (;;) {
    const int n = ::poll(polled.data(), 1 + interrupts.size(), deadline.poll_timeout());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(errno, "poll");
    for (size_t i = 0; i < interrupts.size(); ++i) {
      if (polled[1 + i].revents != 0) return fail(interrupts[i].error);
    }
    if (n == 0) return fail(Code::kDeadlineExceeded, too_late);
    return {};
  }
}

tl::unexpected<Error> gone(int error_number, const char* what) {
  Error error = errno_error(error_number, what);
  error.code = Code::kUnavailable;
  return fail(std::move(error));
}

bool peer_has_gone(int error_number) {
  return error_number == EPIPE || error_number == ECONNRESET || error_number == ECONNREFUSED ||
         error_number == ETIMEDOUT || error_number == EHOSTUNREACH || error_number == ENETUNREACH;
}

}  // namespace

Status connect_ip(int socket, Ipv4Address address, uint16_t port, Deadline deadline, Interrupts interrupts) {
  if (::fcntl(socket, F_SETFL, O_NONBLOCK) != 0) return fail_errno(errno, "make socket non-blocking");
  sockaddr_in target{};
  target.sin_family = AF_INET;
  target.sin_port = htons(port);
  target.sin_addr.s_addr = htonl(address.value);
  if (::connect(socket, reinterpret_cast<const sockaddr*>(&target), sizeof target) == 0) return {};
  if (errno != EINPROGRESS) return gone(errno, "connect to the guest");
  STASIS_TRY(wait_for(socket, POLLOUT, deadline, interrupts, "the guest did not accept a connection in time"));
  int error_number = 0;
  socklen_t size = sizeof error_number;
  if (::getsockopt(socket, SOL_SOCKET, SO_ERROR, &error_number, &size) != 0)
    return fail_errno(errno, "read socket error");
  if (error_number != 0) return gone(error_number, "connect to the guest");
  return {};
}

Result<size_t> receive_some(int socket, std::span<std::byte> out, Deadline deadline, Interrupts interrupts) {
  for (;;) {
    STASIS_TRY(wait_for(socket, POLLIN, deadline, interrupts, "the guest did not answer in time"));
    const ssize_t n = ::recv(socket, out.data(), out.size(), MSG_DONTWAIT);
    if (n >= 0) return static_cast<size_t>(n);
    if (errno == EINTR || errno == EAGAIN) continue;
    if (peer_has_gone(errno)) return gone(errno, "receive from the guest");
    return fail_errno(errno, "receive from the guest");
  }
}

Result<size_t> send_some(int socket, std::span<const std::byte> data, Deadline deadline, Interrupts interrupts) {
  for (;;) {
    STASIS_TRY(wait_for(socket, POLLOUT, deadline, interrupts, "the guest took nothing in time"));
    const ssize_t n = ::send(socket, data.data(), data.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n >= 0) return static_cast<size_t>(n);
    if (errno == EINTR || errno == EAGAIN) continue;
    if (peer_has_gone(errno)) return gone(errno, "send to the guest");
    return fail_errno(errno, "send to the guest");
  }
}

}  // namespace stasis
