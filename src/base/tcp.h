// TCP with deadlines, for callers that must never wait for ever: connect, receive, send. A second descriptor may be
// given to every wait: when it becomes readable the call ends with kCancelled.
#pragma once

#include <cstdint>
#include <span>

#include "base/network.h"
#include "base/poll.h"
#include "base/result.h"

namespace stasis {

// kUnavailable if refused or unreachable, kDeadlineExceeded if nobody answered.
Status connect_tcp(int socket, Ipv4Address address, uint16_t port, Deadline deadline);
// At least one byte; 0 at the end of the stream.
Result<size_t> receive_some(int socket, std::span<std::byte> out, Deadline deadline, int cancel_fd = -1);
Result<size_t> send_some(int socket, std::span<const std::byte> data, Deadline deadline);

}  // namespace stasis
