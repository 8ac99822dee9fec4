#include "guest/greeter.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>

#include "guest/console.h"

namespace stasis::guest {

void Greeter::start() {
  thread_ = std::thread([this] { work(); });
}

void Greeter::stop() {
  if (!thread_.joinable()) return;
  // Wakes the thread although a datagram socket is not connected (which is what it fails with).
  (void)shutdown(socket_.get(), SHUT_RDWR);
  thread_.join();
}

void Greeter::work() {
  std::array<char, kMaxGreetingBytes + 1> buffer;
  for (;;) {
    sockaddr_in from{};
    socklen_t length = sizeof(from);
    const ssize_t count =
        recvfrom(socket_.get(), buffer.data(), buffer.size(), 0, reinterpret_cast<sockaddr*>(&from), &length);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return log_line("greetings are not received any more, error " + std::to_string(errno));
    if (count == 0 && length == 0) return;  // shut down; an empty datagram has a sender
    const auto question = decode_question({buffer.data(), static_cast<size_t>(count)});
    if (!question) continue;
    const std::string reply = answer(*question);
    (void)sendto(socket_.get(), reply.data(), reply.size(), 0, reinterpret_cast<const sockaddr*>(&from), length);
  }
}

std::string Greeter::answer(const GreetingQuestion& question) {
  if (question.what == GreetingQuestion::What::kAreYouThere) return encode(GreetingAnswer{question.nonce, 204, {}});
  if (last_answer_.empty() || question.nonce != last_nonce_) {
    const InitAnswer done = init_(question.body);
    last_nonce_ = question.nonce;
    last_answer_ = encode(GreetingAnswer{question.nonce, static_cast<uint16_t>(done.status), done.message});
  }
  return last_answer_;
}

}  // namespace stasis::guest
