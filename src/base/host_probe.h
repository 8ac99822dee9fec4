// What this host really allows, found by trying: each probe forks a child that does the thing and takes everything with
// it when it ends. For `doctor`; call while single-threaded.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "base/file_system.h"
#include "base/result.h"

namespace stasis {

uid_t effective_user();

Status probe_mount_namespace();
Status probe_network_namespace();
// A tap device in a network namespace of its own: /dev/net/tun and the right to use it.
Status probe_tap();
// Opens /dev/fuse and mounts it in a mount namespace of its own. kNotFound if there is no /dev/fuse.
Status probe_fuse();

struct CgroupSupport {
  int version = 0;  // 2, 1 (or hybrid), 0: none mounted
  std::vector<std::string> controllers;
  bool writable = false;
};
CgroupSupport probe_cgroups();

struct DiskSpace {
  uint64_t total_bytes = 0;
  uint64_t free_bytes = 0;  // for whoever is not root
};
// Of the file system where `path` is, or would be made.
Result<DiskSpace> disk_space(const Path& path);
// Bytes that may still be written where `path` is, or would be made.
Result<uint64_t> free_disk_space(const Path& path);

}  // namespace stasis
