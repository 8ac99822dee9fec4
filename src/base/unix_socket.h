// Unix stream sockets: listen (mode 0600, path at most 107 bytes), accept and connect with deadlines, peer credentials,
// and messages that carry file descriptors. All sockets are close-on-exec. Every received descriptor ends in a
// UniqueFd, so none can leak, whatever the peer sent.
#pragma once

#include <sys/socket.h>
#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/fd.h"
#include "base/file_system.h"
#include "base/poll.h"
#include "base/result.h"

namespace stasis {

// Removes a stale socket at `path`, binds with mode 0600 and listens.
Result<UniqueFd> listen_unix(const Path& path);
// kUnavailable if nobody listens there (no socket, or a stale one); kDeadlineExceeded if whoever does has more waiting
// than fit into its queue, for so long.
Result<UniqueFd> connect_unix(const Path& path, Milliseconds deadline = Milliseconds(5'000));
// kDeadlineExceeded if nobody came.
Result<UniqueFd> accept_unix(int listener, Milliseconds deadline);
// Of a stream, or of packets (SOCK_SEQPACKET).
Result<std::pair<UniqueFd, UniqueFd>> unix_socket_pair(int type = SOCK_STREAM);
// Process id of the peer as the kernel recorded it at connect (SO_PEERCRED).
Result<pid_t> peer_pid(int socket);
// Ends both directions: whoever waits on the socket, in whatever thread, sees the end of the stream. The descriptor
// stays open.
void shut_down_socket(int socket);

// Receives up to out.size() bytes together with descriptors (at most 16 are taken, the kernel closes more). 0 bytes:
// end.
struct Received {
  size_t bytes = 0;
  std::vector<UniqueFd> fds;
};
Result<Received> receive_with_fds(int socket, std::span<std::byte> out);

// Sends everything, blocking; `fds` ride with the first byte. MSG_NOSIGNAL: a dead peer is kUnavailable, never SIGPIPE.
Status send_all(int socket, std::span<const std::byte> data, std::span<const int> fds = {});

// Messages of the supervisor's protocol: a 4-byte little-endian length (at most 16 MiB), then that many bytes;
// descriptors ride with the length. receive_message: std::nullopt at a clean end of stream; kDeadlineExceeded after
// `deadline`.
struct Message {
  std::string body;
  std::vector<UniqueFd> fds;
};
Status send_message(int socket, std::string_view body, std::span<const int> fds = {});
Result<std::optional<Message>> receive_message(int socket, Milliseconds deadline);

}  // namespace stasis
