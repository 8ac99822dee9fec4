// What must hold for the decoder of every durable format: nothing but the bytes that were written is taken for them.
#pragma once

#include <gtest/gtest.h>

#include "snapshot/testing/fixtures.h"

namespace stasis::snapshot::testing {

// `decode` takes bytes and returns some Result. The whole of `good` decodes; every truncation, every flipped bit and a
// byte too many are kDataLoss.
template <typename Decode>
void expect_only_whole(const Bytes& good, Decode decode) {
  ASSERT_TRUE(decode(good));
  for (size_t length = 0; length < good.size(); ++length) {
    // A copy of exactly that length, so that a sanitizer sees a read behind its end.
    const Bytes torn(good.begin(), good.begin() + static_cast<ptrdiff_t>(length));
    const auto result = decode(torn);
    ASSERT_FALSE(result) << "cut after " << length << " bytes";
    ASSERT_EQ(result.error().code, Code::kDataLoss) << result.error().message;
  }
  for (size_t bit = 0; bit < good.size() * 8; ++bit) {
    Bytes flipped = good;
    flipped[bit / 8] ^= std::byte{1} << (bit % 8);
    const auto result = decode(flipped);
    ASSERT_FALSE(result) << "bit " << bit % 8 << " of byte " << bit / 8 << " flipped";
    ASSERT_EQ(result.error().code, Code::kDataLoss) << result.error().message;
  }
  Bytes longer = good;
  longer.push_back(std::byte{0});
  EXPECT_FALSE(decode(longer));
}

inline std::string hex(const Bytes& bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const std::byte byte : bytes) {
    text += kDigits[static_cast<uint8_t>(byte) >> 4];
    text += kDigits[static_cast<uint8_t>(byte) & 15];
  }
  return text;
}

inline Bytes from_hex(std::string_view text) {
  Bytes bytes;
  for (size_t i = 0; i + 1 < text.size(); i += 2) {
    bytes.push_back(static_cast<std::byte>(std::stoul(std::string(text.substr(i, 2)), nullptr, 16)));
  }
  return bytes;
}

}  // namespace stasis::snapshot::testing
