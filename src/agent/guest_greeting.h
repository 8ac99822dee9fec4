// Asks a guest daemon by datagrams (base/greeting.h), over a socket that was made inside the sandbox's network
// namespace. A question is repeated until it is answered or its deadline has passed. Not thread-safe.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "base/greeting.h"
#include "base/ip_socket.h"

namespace stasis::agent {

class GuestGreeting {
 public:
  // `socket` is connected; `ended` is held open for the interrupts.
  GuestGreeting(UniqueFd socket, UniqueFd ended, std::vector<Interrupt> interrupts)
      : socket_(std::move(socket)), ended_(std::move(ended)), interrupts_(std::move(interrupts)) {}

  // `body`: at most kMaxQuestionBody. kUnavailable at once if nobody takes datagrams: the guest's daemon is not there
  // yet, or older than they are.
  Status ask(GreetingQuestion::What what, std::string_view body, Deadline deadline);

 private:
  // None if it has not come in time.
  Result<std::optional<Status>> await_answer(const GreetingNonce& nonce, Deadline deadline);

  UniqueFd socket_;
  UniqueFd ended_;
  std::vector<Interrupt> interrupts_;
};

}  // namespace stasis::agent
