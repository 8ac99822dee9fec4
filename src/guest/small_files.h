// Small files read and written whole.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace stasis::guest {

Result<std::string> read_small_file(const std::string& path, size_t max_bytes);
// Gives the file this content, mode 0644. The directory must exist. A file that becomes no shorter is written in place,
// by one write: a new inode, a rename and the end of the old one would touch ten times as much memory, all of which is
// a clone's own from then on. Any other is replaced atomically (temporary name, rename).
Status write_small_file(const std::string& path, std::string_view content);

}  // namespace stasis::guest
