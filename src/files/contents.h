// Whether two files of two file systems are the same. Where both lie in the same bytes of the same layers nothing is
// read; where one is kept apart, the bytes decide, not where they lie.
#pragma once

#include "files/ext_file_system.h"

namespace stasis::files {

struct Versions {
  ExtFileSystem& before;
  ExtFileSystem& now;
};

// Of regular files, symbolic links and devices, of the same type; anything else has no content.
Result<bool> same_content(const Versions& versions, const Inode& before, const Inode& now);
// Extended attributes and flags.
Result<bool> same_attributes(const Versions& versions, const Inode& before, const Inode& now);

}  // namespace stasis::files
