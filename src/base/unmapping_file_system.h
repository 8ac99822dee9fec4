// The real file system for a process whose address space is limited: it maps no files.
#pragma once

#include "base/file_system.h"

namespace stasis {

FileSystem& unmapping_file_system();

}  // namespace stasis
