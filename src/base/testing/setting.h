// A number that whoever runs a test may set in the environment: how long it takes, from which seed.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <string>

namespace stasis::testing {

inline uint64_t setting(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);  // NOLINT(concurrency-mt-unsafe): nobody sets it
  return text != nullptr ? std::stoull(text) : otherwise;
}

}  // namespace stasis::testing
