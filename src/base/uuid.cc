#include "base/uuid.h"

#include <sys/random.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace stasis {
namespace {

constexpr std::string_view kHex = "0123456789abcdef";

bool dash_before(size_t byte_index) {
  return byte_index == 4 || byte_index == 6 || byte_index == 8 || byte_index == 10;
}

}  // namespace

void fill_random(std::span<std::byte> out) {
  while (!out.empty()) {
    const ssize_t n = ::getrandom(out.data(), out.size(), 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) std::abort();  // no other error is possible for a valid buffer since Linux 3.17
    out = out.subspan(static_cast<size_t>(n));
  }
}

Uuid Uuid::random() {
  Uuid uuid;
  fill_random(std::as_writable_bytes(std::span(uuid.bytes)));
  uuid.bytes[6] = static_cast<uint8_t>((uuid.bytes[6] & 0x0f) | 0x40);
  uuid.bytes[8] = static_cast<uint8_t>((uuid.bytes[8] & 0x3f) | 0x80);
  return uuid;
}

std::string Uuid::text() const {
  std::string text;
  text.reserve(36);
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (dash_before(i)) text.push_back('-');
    text.push_back(kHex[bytes[i] >> 4]);
    text.push_back(kHex[bytes[i] & 0x0f]);
  }
  return text;
}

Result<Uuid> Uuid::parse(std::string_view text) {
  const auto bad = [&] {
    return fail(Code::kInvalidArgument, "'" + std::string(text.substr(0, 64)) + "' is not a UUID");
  };
  if (text.size() != 36) return bad();
  Uuid uuid;
  size_t at = 0;
  for (size_t i = 0; i < uuid.bytes.size(); ++i) {
    if (dash_before(i) && text[at++] != '-') return bad();
    const size_t high = kHex.find(text[at++]);
    const size_t low = kHex.find(text[at++]);
    if (high == std::string_view::npos || low == std::string_view::npos) return bad();
    uuid.bytes[i] = static_cast<uint8_t>(high << 4 | low);
  }
  return uuid;
}

}  // namespace stasis

size_t std::hash<stasis::Uuid>::operator()(const stasis::Uuid& uuid) const noexcept {
  size_t value = 0;
  std::memcpy(&value, uuid.bytes.data(), sizeof value);  // random bytes: any eight of them are a good hash
  return value;
}
