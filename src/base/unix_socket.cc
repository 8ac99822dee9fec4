#include "base/unix_socket.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>

#include "base/poll.h"

namespace stasis {
namespace {

constexpr size_t kMaxFds = 16;
constexpr size_t kMaxMessage = 16U << 20;

Result<sockaddr_un> address_of(const Path& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string& text = path.native();
  if (text.size() >= sizeof address.sun_path) {
    return fail(Code::kInvalidArgument, "socket path " + text + " is longer than 107 bytes",
                "use a state directory with a shorter path");
  }
  std::memcpy(address.sun_path, text.data(), text.size());
  return address;
}

Result<UniqueFd> new_socket() {
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd) return fail_errno(errno, "create unix socket");
  return fd;
}

void take_fds(msghdr& header, std::vector<UniqueFd>& fds) {
  for (cmsghdr* c = CMSG_FIRSTHDR(&header); c != nullptr; c = CMSG_NXTHDR(&header, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof fd);
      fds.emplace_back(fd);
    }
  }
}

// Reads exactly out.size() bytes before `deadline`. Returns how many came before the end of the stream.
Result<size_t> receive_exactly(int socket, std::span<std::byte> out, std::vector<UniqueFd>& fds, Deadline deadline) {
  size_t done = 0;
  while (done < out.size()) {
    STASIS_ASSIGN(const bool ready, wait_readable(socket, deadline));
    if (!ready) return fail(Code::kDeadlineExceeded, "the other side did not answer in time");
    STASIS_ASSIGN(Received part, receive_with_fds(socket, out.subspan(done)));
    for (UniqueFd& fd : part.fds) fds.push_back(std::move(fd));
    if (part.bytes == 0) break;
    done += part.bytes;
  }
  return done;
}

// unix(7): a connect() to a listener whose queue is full waits for as long as a send may. 0: for ever.
Status limit_sends(int socket, Milliseconds limit) {
  const timeval time{limit.count() / 1000, limit.count() % 1000 * 1000};
  if (::setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &time, sizeof time) != 0) return fail_errno(errno, "SO_SNDTIMEO");
  return {};
}

}  // namespace

Result<UniqueFd> listen_unix(const Path& path) {
  STASIS_ASSIGN(const sockaddr_un address, address_of(path));
  STASIS_ASSIGN(UniqueFd fd, new_socket());
  ::unlink(path.c_str());
  // fchmod before bind decides the mode of the file that bind makes: it is never open to others, not even for a moment.
  if (::fchmod(fd.get(), 0600) != 0) return fail_errno(errno, "set socket mode");
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return fail_errno(errno, "bind socket " + path.string());
  }
  if (::listen(fd.get(), 64) != 0) return fail_errno(errno, "listen on " + path.string());
  return fd;
}

Result<UniqueFd> connect_unix(const Path& path, Milliseconds deadline) {
  STASIS_ASSIGN(const sockaddr_un address, address_of(path));
  STASIS_ASSIGN(UniqueFd fd, new_socket());
  STASIS_TRY(limit_sends(fd.get(), deadline));
  while (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    if (errno == EINTR) continue;
    if (errno == ENOENT || errno == ECONNREFUSED) {
      return fail(Code::kUnavailable, "nobody listens on " + path.string());
    }
    if (errno == EAGAIN) {
      return fail(Code::kDeadlineExceeded, "who listens on " + path.string() + " takes no connections");
    }
    return fail_errno(errno, "connect to " + path.string());
  }
  STASIS_TRY(limit_sends(fd.get(), Milliseconds(0)));
  return fd;
}

Result<UniqueFd> accept_unix(int listener, Milliseconds deadline) {
  STASIS_ASSIGN(const bool ready, wait_readable(listener, Deadline::after(deadline)));
  if (!ready)
    return fail(Code::kDeadlineExceeded, "nobody connected within " + std::to_string(deadline.count()) + " ms");
  for (;;) {
    UniqueFd fd(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC));
    if (fd) return fd;
    if (errno != EINTR) return fail_errno(errno, "accept");
  }
}

Result<std::pair<UniqueFd, UniqueFd>> unix_socket_pair(int type) {
  std::array<int, 2> fds{};
  if (::socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, fds.data()) != 0) return fail_errno(errno, "socketpair");
  return std::pair(UniqueFd(fds[0]), UniqueFd(fds[1]));
}

Result<pid_t> peer_pid(int socket) {
  ucred credentials{};
  socklen_t size = sizeof credentials;
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) {
    return fail_errno(errno, "read peer credentials");
  }
  return credentials.pid;
}

void shut_down_socket(int socket) { (void)::shutdown(socket, SHUT_RDWR); }

Result<Received> receive_with_fds(int socket, std::span<std::byte> out) {
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(kMaxFds * sizeof(int))> control{};
  iovec part{out.data(), out.size()};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control.data();
  header.msg_controllen = control.size();
  for (;;) {
    const ssize_t n = ::recvmsg(socket, &header, MSG_CMSG_CLOEXEC);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == ECONNRESET) return Received{};
    if (n < 0) return fail_errno(errno, "receive");
    Received received;
    received.bytes = static_cast<size_t>(n);
    take_fds(header, received.fds);
    return received;
  }
}

Status send_all(int socket, std::span<const std::byte> data, std::span<const int> fds) {
  if (fds.size() > kMaxFds) return fail(Code::kInvalidArgument, "too many descriptors in one message");
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(kMaxFds * sizeof(int))> control{};
  while (!data.empty()) {
    iovec part{const_cast<std::byte*>(data.data()), data.size()};
    msghdr header{};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    if (!fds.empty()) {
      header.msg_control = control.data();
      header.msg_controllen = CMSG_SPACE(fds.size_bytes());
      cmsghdr* c = CMSG_FIRSTHDR(&header);
      c->cmsg_level = SOL_SOCKET;
      c->cmsg_type = SCM_RIGHTS;
      c->cmsg_len = CMSG_LEN(fds.size_bytes());
      std::memcpy(CMSG_DATA(c), fds.data(), fds.size_bytes());
    }
    const ssize_t n = ::sendmsg(socket, &header, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && (errno == EPIPE || errno == ECONNRESET)) return fail(Code::kUnavailable, "the other side has gone");
    if (n < 0) return fail_errno(errno, "send");
    data = data.subspan(static_cast<size_t>(n));
    fds = {};
  }
  return {};
}

Status send_message(int socket, std::string_view body, std::span<const int> fds) {
  if (body.size() > kMaxMessage) return fail(Code::kInvalidArgument, "message too large");
  std::string frame;
  frame.reserve(4 + body.size());
  for (int shift = 0; shift < 32; shift += 8) frame.push_back(static_cast<char>(body.size() >> shift & 0xff));
  frame.append(body);
  return send_all(socket, std::as_bytes(std::span(frame)), fds);
}

Result<std::optional<Message>> receive_message(int socket, Milliseconds limit) {
  const Deadline deadline = Deadline::after(limit);
  Message message;
  std::array<std::byte, 4> prefix{};
  STASIS_ASSIGN(const size_t got, receive_exactly(socket, prefix, message.fds, deadline));
  if (got == 0) return std::nullopt;
  if (got < prefix.size()) return fail(Code::kUnavailable, "the other side went away in the middle of a message");
  size_t length = 0;
  for (size_t i = 0; i < prefix.size(); ++i) length |= std::to_integer<size_t>(prefix[i]) << (8 * i);
  if (length > kMaxMessage)
    return fail(Code::kInvalidArgument, "message of " + std::to_string(length) + " bytes is too large");
  message.body.resize(length);
  STASIS_ASSIGN(const size_t body,
                receive_exactly(socket, std::as_writable_bytes(std::span(message.body)), message.fds, deadline));
  if (body < length) return fail(Code::kUnavailable, "the other side went away in the middle of a message");
  return message;
}

}  // namespace stasis
