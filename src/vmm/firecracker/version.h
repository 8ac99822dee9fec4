// Which Firecracker: the program, and the versions that the driver speaks to.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace stasis::vmm {

inline constexpr const char* kFirecrackerRemedy =
    "put firecracker (1.13 or later) into PATH, or name it in STASIS_FIRECRACKER";

// The number in "1.16.1", "v1.16.1" or "Firecracker v1.17.0-dev ...": "1.16.1", "1.17.0-dev". kUnimplemented
// before 1.13, the first whose snapshot/load knows track_dirty_pages; kInternal for what is no version.
Result<std::string> supported_version(std::string_view text);

}  // namespace stasis::vmm
