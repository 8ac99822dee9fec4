// TCP with deadlines, for callers that must never wait for ever: connect, receive, send. Every wait also ends when one
// of the given interrupts fires. The socket is made non-blocking by connect_tcp.
#pragma once

#include <cstdint>
#include <span>

#include "base/network.h"
#include "base/poll.h"
#include "base/result.h"

namespace stasis {

// Ends a wait with `error` once `fd` is readable, whatever the socket has to say.
struct Interrupt {
  int fd = -1;
  Error error;
};
inline constexpr size_t kMaxInterrupts = 4;
using Interrupts = std::span<const Interrupt>;  // the first that has fired decides; at most kMaxInterrupts

// kUnavailable if refused or unreachable, kDeadlineExceeded if nobody answered.
Status connect_tcp(int socket, Ipv4Address address, uint16_t port, Deadline deadline, Interrupts interrupts = {});
// At least one byte; 0 at the end of the stream.
Result<size_t> receive_some(int socket, std::span<std::byte> out, Deadline deadline, Interrupts interrupts = {});
Result<size_t> send_some(int socket, std::span<const std::byte> data, Deadline deadline, Interrupts interrupts = {});

}  // namespace stasis
