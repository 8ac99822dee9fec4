// Small files read and written whole.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace stasis::guest {

Result<std::string> read_small_file(const std::string& path, size_t max_bytes);
// Replaces the file atomically (temporary name, rename), mode 0644. The directory must exist.
Status replace_small_file(const std::string& path, std::string_view content);

}  // namespace stasis::guest
