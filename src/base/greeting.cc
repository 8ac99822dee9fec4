#include "base/greeting.h"

#include <algorithm>

namespace stasis {
namespace {

constexpr std::string_view kQuestion = "SGQ1";
constexpr std::string_view kAnswer = "SGA1";
constexpr size_t kNonceAt = 4;
constexpr size_t kNonceEnd = kNonceAt + GreetingNonce{}.size();

std::string encode(std::string_view magic, const GreetingNonce& nonce, std::string_view head, std::string_view body) {
  std::string datagram(magic);
  datagram.append(nonce.data(), nonce.size());
  datagram.append(head);
  datagram.append(body.substr(0, kMaxGreetingBytes - datagram.size()));
  return datagram;
}

bool has_head(std::string_view datagram, std::string_view magic, size_t size) {
  return datagram.size() >= size && datagram.size() <= kMaxGreetingBytes && datagram.starts_with(magic);
}

GreetingNonce nonce_of(std::string_view datagram) {
  GreetingNonce nonce;
  std::copy_n(datagram.begin() + kNonceAt, nonce.size(), nonce.begin());
  return nonce;
}

}  // namespace

std::string encode(const GreetingQuestion& question) {
  const char what = static_cast<char>(question.what);
  return encode(kQuestion, question.nonce, {&what, 1}, question.body);
}

std::string encode(const GreetingAnswer& answer) {
  const std::array status{static_cast<char>(answer.status >> 8), static_cast<char>(answer.status & 0xFF)};
  return encode(kAnswer, answer.nonce, {status.data(), status.size()}, answer.body);
}

std::optional<GreetingQuestion> decode_question(std::string_view datagram) {
  if (!has_head(datagram, kQuestion, kNonceEnd + 1)) return std::nullopt;
  const auto what = static_cast<uint8_t>(datagram[kNonceEnd]);
  if (what > static_cast<uint8_t>(GreetingQuestion::What::kInit)) return std::nullopt;
  return GreetingQuestion{nonce_of(datagram), GreetingQuestion::What{what}, datagram.substr(kNonceEnd + 1)};
}

std::optional<GreetingAnswer> decode_answer(std::string_view datagram) {
  if (!has_head(datagram, kAnswer, kNonceEnd + 2)) return std::nullopt;
  const auto high = static_cast<uint8_t>(datagram[kNonceEnd]);
  const auto low = static_cast<uint8_t>(datagram[kNonceEnd + 1]);
  return GreetingAnswer{nonce_of(datagram), static_cast<uint16_t>(high << 8 | low), datagram.substr(kNonceEnd + 2)};
}

}  // namespace stasis
