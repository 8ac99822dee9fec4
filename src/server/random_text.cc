#include "server/random_text.h"

#include <array>

#include "base/uuid.h"

namespace stasis::server {

std::string random_text(size_t length, std::string_view alphabet) {
  const size_t usable = 256 / alphabet.size() * alphabet.size();  // bytes above would favour the first characters
  std::string text;
  while (text.size() < length) {
    std::array<std::byte, 64> bytes;
    fill_random(bytes);
    for (const std::byte byte : bytes) {
      const auto value = static_cast<size_t>(byte);
      if (value < usable && text.size() < length) text += alphabet[value % alphabet.size()];
    }
  }
  return text;
}

}  // namespace stasis::server
