// The double's device state: a JSON object between a magic number and a checksum. Errors are in Firecracker's words.
#pragma once

#include <nlohmann/json.hpp>

#include "base/file_system.h"
#include "base/result.h"

namespace fake {

stasis::Status write_state_file(const stasis::Path& path, const nlohmann::json& config);
stasis::Result<nlohmann::json> read_state_file(const stasis::Path& path);

}  // namespace fake
