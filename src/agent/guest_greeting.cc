#include "agent/guest_greeting.h"

#include <algorithm>

#include "agent/guest_answer.h"
#include "base/uuid.h"

namespace stasis::agent {
namespace {

// What a guest that is just being booted was asked before it had a network is lost.
constexpr Milliseconds kAskedAgainAfter{20};

}  // namespace

Status GuestGreeting::ask(GreetingQuestion::What what, std::string_view body, Deadline deadline) {
  if (body.size() > kMaxQuestionBody) return fail(Code::kInternal, "this is too much for a datagram");
  GreetingQuestion question{{}, what, body};
  fill_random(std::as_writable_bytes(std::span(question.nonce)));
  const std::string datagram = encode(question);
  for (;;) {
    STASIS_TRY(send_some(socket_.get(), std::as_bytes(std::span(datagram)), deadline, interrupts_));
    const Deadline again = Deadline::from(std::min(Deadline::after(kAskedAgainAfter).at(), deadline.at()));
    STASIS_ASSIGN(const auto answer, await_answer(question.nonce, again));
    if (answer) return *answer;
    if (deadline.passed()) return fail(Code::kDeadlineExceeded, "the guest did not answer in time");
  }
}

// What belongs to an earlier question, or is none of ours, is left lying.
Result<std::optional<Status>> GuestGreeting::await_answer(const GreetingNonce& nonce, Deadline deadline) {
  for (;;) {
    std::array<char, kMaxGreetingBytes + 1> buffer;
    const auto n = receive_some(socket_.get(), std::as_writable_bytes(std::span(buffer)), deadline, interrupts_);
    if (!n && n.error().code == Code::kDeadlineExceeded) return std::nullopt;
    if (!n) return fail(Error(n.error()));
    const auto answer = decode_answer({buffer.data(), *n});
    if (!answer || answer->nonce != nonce) continue;
    if (answer->status / 100 == 2) return Status{};
    return Status(fail(guest_error(answer->status, std::string(answer->body))));
  }
}

}  // namespace stasis::agent
