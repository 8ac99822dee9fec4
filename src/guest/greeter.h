// Answers greetings (base/greeting.h), on a thread of its own: whether the daemon is there, and /init. What was asked
// twice is done once.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <thread>

#include "base/fd.h"
#include "base/greeting.h"
#include "guest/init_handler.h"

namespace stasis::guest {

class Greeter {
 public:
  using Init = std::function<InitAnswer(std::string_view body)>;

  // `socket` is a bound datagram socket.
  Greeter(UniqueFd socket, Init init) : socket_(std::move(socket)), init_(std::move(init)) {}
  Greeter(const Greeter&) = delete;
  Greeter& operator=(const Greeter&) = delete;
  ~Greeter() { stop(); }

  void start();
  void stop();

 private:
  void work();
  std::string answer(const GreetingQuestion& question);

  UniqueFd socket_;
  Init init_;
  std::thread thread_;
  GreetingNonce last_nonce_{};  // of the last /init, and its answer
  std::string last_answer_;
};

}  // namespace stasis::guest
