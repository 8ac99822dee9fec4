// Random text from the kernel's generator: ids and secrets.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace stasis::server {

inline constexpr std::string_view kLowerAndDigits = "abcdefghijklmnopqrstuvwxyz0123456789";
inline constexpr std::string_view kHexDigits = "0123456789abcdef";

// `length` characters, each of `alphabet` (at most 256) equally likely.
std::string random_text(size_t length, std::string_view alphabet);

}  // namespace stasis::server
