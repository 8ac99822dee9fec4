// Keeping memory where it is, for who must never wait for it.
#pragma once

#include <cstddef>
#include <span>

#include "base/result.h"

namespace stasis {

// Brings what this process has mapped there into the host's memory, and keeps it there until it is unmapped. An error
// if any of it cannot be had, or the process may not keep so much (RLIMIT_MEMLOCK).
Status keep_resident(std::span<const std::byte> range);

}  // namespace stasis
