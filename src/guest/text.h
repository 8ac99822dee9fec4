// Small text codecs: queries, base64, SHA-256, RFC 3339, numbers. Decoders return nothing for malformed input.
#pragma once

#include <array>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/base64.h"
#include "base/percent.h"

namespace stasis::guest {

// "a=1&b=2" decoded, in order; malformed pairs are left out.
std::vector<std::pair<std::string, std::string>> parse_query(std::string_view query);

// Standard or URL alphabet, padding optional.
std::optional<std::string> base64_decode(std::string_view text);

std::array<uint8_t, 32> sha256(std::string_view data);

// The whole text as an unsigned decimal number.
std::optional<uint64_t> parse_number(std::string_view text);

// "2026-11-24T22:31:05.123456789Z" (or with an offset, +01:00) as nanoseconds since 1970.
std::optional<int64_t> parse_rfc3339(std::string_view text);

std::string lower_case(std::string_view text);
// True if both are equal, in a time that depends on their lengths only.
bool equal_secrets(std::string_view a, std::string_view b);

// JSON as text; bytes that are not UTF-8 become U+FFFD instead of an exception.
std::string to_text(const nlohmann::json& value);
// A JSON object, or nothing.
std::optional<nlohmann::json> parse_object(std::string_view text);

}  // namespace stasis::guest
