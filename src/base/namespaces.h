// Mount and network namespaces of the calling process, and mounts in them. A process that has entered a namespace of
// its own takes everything in it (mounts, interfaces) along when it dies: nothing needs to be cleaned up outside.
#pragma once

#include <cstdint>
#include <string>

#include "base/file_system.h"
#include "base/result.h"

namespace stasis {

// Gives the calling process its own mount namespace, in which nothing propagates in or out. Call while single-threaded.
Status enter_private_mount_namespace();
// Gives the calling process its own network namespace, with lo down and nothing else. Call while single-threaded.
Status enter_private_network_namespace();

// Mounts a tmpfs (mode 0700, at most `max_bytes`) on an existing directory, without devices, set-uid or exec.
Status mount_tmpfs(const Path& directory, uint64_t max_bytes);
// Unmounts lazily: no new access, gone when the last user is.
Status unmount(const Path& directory);

// makes `directory` and every missing parent with mode 0755.
Status make_directories(const Path& directory);

}  // namespace stasis
