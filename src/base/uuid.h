// UUIDs (random, RFC 4122 version 4): the identity of layers, snapshots and block maps. 16 bytes; the text form is
// lower-case "xxxxxxxx-xxxx-4xxx-yxxx-xxxxxxxxxxxx". The nil UUID (all zero bytes) names nothing.
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"

namespace stasis {

struct Uuid {
  std::array<uint8_t, 16> bytes{};

  static Uuid random();
  static Result<Uuid> parse(std::string_view text);
  bool is_nil() const { return *this == Uuid{}; }
  std::string text() const;
  friend auto operator<=>(const Uuid&, const Uuid&) = default;
};

// Fills `out` from the kernel's random generator.
void fill_random(std::span<std::byte> out);

}  // namespace stasis

template <>
struct std::hash<stasis::Uuid> {
  size_t operator()(const stasis::Uuid& uuid) const noexcept;
};
