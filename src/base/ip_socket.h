// Sockets of TCP and UDP with deadlines, for callers that must never wait for ever: connect, receive, send. Every wait
// also ends when one of the given interrupts fires. The socket is made non-blocking by connect_ip.
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

// TCP: kUnavailable if refused or unreachable, kDeadlineExceeded if nobody answered. UDP: from now on the socket speaks
// with this address alone, and whether somebody is there the first receive_some() tells (kUnavailable: nobody).
Status connect_ip(int socket, Ipv4Address address, uint16_t port, Deadline deadline, Interrupts interrupts = {});
// At least one byte, 0 at the end of the stream; of UDP one datagram, cut off where `out` ends.
Result<size_t> receive_some(int socket, std::span<std::byte> out, Deadline deadline, Interrupts interrupts = {});
Result<size_t> send_some(int socket, std::span<const std::byte> data, Deadline deadline, Interrupts interrupts = {});

}  // namespace stasis
