// Background loading: how far it is.
#pragma once

#include <cstdint>
#include <optional>

#include "base/result.h"

namespace stasis::pager {

enum class LoadState : uint8_t {
  kNone,      // was not asked for
  kLoading,   // on its way, or waiting for its turn behind the working set
  kComplete,  // nothing that the guest can touch will have to come from a layer any more
  kEnded,     // before that: something could not be had
};

struct LoadReport {
  LoadState state = LoadState::kNone;
  std::optional<Error> why;  // kEnded
};

}  // namespace stasis::pager
