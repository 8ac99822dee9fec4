// What `cp` copies from where to where.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace stasis::cli {

struct Place {
  std::string sandbox;  // empty: this machine
  std::string path;     // "-" on this machine: a standard stream
  bool remote() const { return !sandbox.empty(); }
};

// "ID:path" is in a sandbox; a path with a slash before its first colon, or without a colon, is on this machine (so
// "./a:b" is a file here). kInvalidArgument for an empty path.
Result<Place> parse_place(std::string_view text);

// Where a copy of `source` goes: `target` itself, or inside it if it is a directory (it ends in '/', or
// `is_directory`).
std::string path_in(const std::string& target, const std::string& source, bool is_directory);

}  // namespace stasis::cli
