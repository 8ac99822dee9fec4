// Spans of time as people type them.
#pragma once

#include <charconv>
#include <cstdint>
#include <string_view>

#include "base/result.h"

namespace stasis::cli {

// "90", "90s", "15m", "2h", "7d": seconds. kInvalidArgument for anything else, and for more than 68 years.
inline Result<uint32_t> parse_span_of_time(std::string_view text) {
  uint32_t number = 0;
  const auto [unit, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string_view rest(unit, static_cast<size_t>(text.data() + text.size() - unit));
  const uint64_t factor = rest.empty() || rest == "s" ? 1
                          : rest == "m"               ? 60
                          : rest == "h"               ? 3600
                          : rest == "d"               ? 86'400
                                                      : 0;
  const uint64_t seconds = number * factor;
  if (error == std::errc() && factor > 0 && seconds <= INT32_MAX) return static_cast<uint32_t>(seconds);
  return fail(Code::kInvalidArgument, "'" + std::string(text) + "' is no span of time", "like 90s, 15m, 2h or 7d");
}

}  // namespace stasis::cli
