// What a path is, in the form of the protocol's EntryInfo.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "base/result.h"
#include "guest/users.h"

namespace stasis::guest {

// {name, type, path, size, mode, permissions, owner, group, modifiedTime, symlinkTarget?, isSymlink?, metadata?}. A
// link is described by what it leads to, with its target beside it; one that leads nowhere is a FILE_TYPE_SYMLINK.
Result<nlohmann::json> entry_info(const std::string& path, const UserDatabase& users);

// "-rw-r--r--"
std::string permissions_text(unsigned mode);

}  // namespace stasis::guest
