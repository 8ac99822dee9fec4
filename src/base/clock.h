// Time: wall clock as Unix time, and RFC 3339 text.
#pragma once

#include <cstdint>
#include <string>

namespace stasis {

int64_t unix_time_ns();
inline int64_t unix_time_ms() { return unix_time_ns() / 1'000'000; }

// "2026-11-24T22:31:05.123456789Z"
std::string rfc3339(int64_t unix_ns);

}  // namespace stasis
