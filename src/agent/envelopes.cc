#include "agent/envelopes.h"

#include <cstdint>

namespace stasis::agent {
namespace {

constexpr size_t kHeader = 5;
constexpr size_t kMaxPayload = 16 << 20;
constexpr unsigned char kLastFlag = 2;

}  // namespace

std::string encode_envelope(std::string_view payload) {
  std::string out(1, '\0');
  for (int shift = 24; shift >= 0; shift -= 8) out.push_back(static_cast<char>(payload.size() >> shift & 0xff));
  return out.append(payload);
}

Result<std::optional<Envelope>> EnvelopeDecoder::next() {
  if (buffer_.size() < kHeader) return std::nullopt;
  const auto byte = [&](size_t i) { return static_cast<size_t>(static_cast<unsigned char>(buffer_[i])); };
  const size_t length = byte(1) << 24 | byte(2) << 16 | byte(3) << 8 | byte(4);
  if (length > kMaxPayload)
    return fail(Code::kInternal, "the guest daemon sent an envelope of " + std::to_string(length) + " bytes");
  if (buffer_.size() < kHeader + length) return std::nullopt;
  Envelope envelope{(byte(0) & kLastFlag) != 0, buffer_.substr(kHeader, length)};
  buffer_.erase(0, kHeader + length);
  return envelope;
}

}  // namespace stasis::agent
