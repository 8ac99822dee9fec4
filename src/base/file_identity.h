// What tells one state of a file from another, though it has the same name and length: size, times and inode, as text.
// A change of content, mode, name or links gives another identity, since nobody can set the time of the last change
// (ctime) back.
#pragma once

#include <string>

#include "base/file_system.h"
#include "base/result.h"

namespace stasis {

// kNotFound if there is nothing at `path`.
Result<std::string> file_identity(const Path& path);

}  // namespace stasis
