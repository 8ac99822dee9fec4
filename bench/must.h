// A bench that meets an error has nothing to say but that.
#pragma once

#include <errno.h>

#include <cstdlib>
#include <iostream>

#include "base/result.h"

namespace stasis::bench {

inline void must(const Status& status) {
  if (status) return;
  std::cerr << program_invocation_short_name << ": " << status.error().message << "\n";
  std::exit(1);
}

// The value, of which there is one.
template <typename T>
T must(Result<T> result) {
  if (!result) must(Status(fail(std::move(result).error())));
  return std::move(*result);
}

}  // namespace stasis::bench
