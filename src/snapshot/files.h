// Small things about the store's files.
#pragma once

#include <string_view>

#include "base/file_system.h"

namespace stasis::snapshot {

// kAlreadyExists, naming `what`, if there is anything at `path`. Where that cannot be found out, the reason: nothing is
// ever overwritten because a look at it failed.
inline Status check_absent(FileSystem& fs, const Path& path, std::string_view what) {
  const auto info = fs.info(path);
  if (info) return fail(Code::kAlreadyExists, "there is a " + std::string(what) + " already");
  if (info.error().code == Code::kNotFound) return {};
  return fail(info.error());
}

inline Path temporary_of(const Path& path) { return path.string() + ".tmp"; }

}  // namespace stasis::snapshot
