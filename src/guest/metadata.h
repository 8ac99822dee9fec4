// Metadata that a client keeps with a file: extended attributes user.e2b.<key>.
#pragma once

#include <map>
#include <string>

#include "base/result.h"

namespace stasis::guest {

std::map<std::string, std::string> read_metadata(const std::string& path);
// Replaces all of it. A file system without extended attributes is an error only if there is something to store.
Status write_metadata(int fd, const std::map<std::string, std::string>& metadata);

}  // namespace stasis::guest
