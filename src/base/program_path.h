// Which file a program's name means.
#pragma once

#include <string>
#include <vector>

#include "base/file_system.h"
#include "base/result.h"

namespace stasis {

// All that it can mean, in order: itself, if it has a slash, or one in each directory of PATH.
std::vector<std::string> program_candidates(const std::string& program);
// The first of them that is there, behind all symbolic links; kNotFound.
Result<Path> find_program(const std::string& program);

}  // namespace stasis
