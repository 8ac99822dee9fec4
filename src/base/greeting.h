// The datagrams by which a host asks whether a guest daemon is there, and tells it who it is. One question, one answer,
// no connection: under TCG every piece of code that a restored guest runs for the first time is translated first, and
// taking a TCP connection and a request of HTTP is more than half of all it runs until its first answer.
//
//   question: "SGQ1", nonce (8 bytes), what (1 byte), body
//   answer:   "SGA1", nonce (8 bytes), status (2 bytes, big endian, as HTTP's), body
//
// The nonce is the asker's and comes back. A question may come twice, an answer may get lost: who asks repeats the very
// same question until it has its answer, and who answers does what it asks for once. Both fit in one Ethernet frame.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace stasis {

inline constexpr size_t kMaxGreetingBytes = 1'400;

using GreetingNonce = std::array<char, 8>;

inline constexpr size_t kMaxQuestionBody = kMaxGreetingBytes - 4 - GreetingNonce{}.size() - 1;

struct GreetingQuestion {
  enum class What : uint8_t {
    kAreYouThere = 0,  // no body
    kInit = 1,         // the body of POST /init
  };
  GreetingNonce nonce{};
  What what = What::kAreYouThere;
  std::string_view body;
};

struct GreetingAnswer {
  GreetingNonce nonce{};
  uint16_t status = 0;
  std::string_view body;  // says what is wrong, as POST /init does
};

// Cut off at kMaxGreetingBytes: a question's body has at most kMaxQuestionBody.
std::string encode(const GreetingQuestion& question);
std::string encode(const GreetingAnswer& answer);
// Nothing for what is none. Views into `datagram`.
std::optional<GreetingQuestion> decode_question(std::string_view datagram);
std::optional<GreetingAnswer> decode_answer(std::string_view datagram);

}  // namespace stasis
