#include "base/process_memory.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <sstream>
#include <string>

namespace stasis {

uint64_t resident_bytes(pid_t pid) {
  std::ifstream statm("/proc/" + std::to_string(pid) + "/statm");
  uint64_t total_pages = 0;
  uint64_t resident_pages = 0;
  statm >> total_pages >> resident_pages;
  return statm ? resident_pages * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE)) : 0;
}

// Line: "7f6c...-7f6d... rw-s 00000000 00:01 1045   /memfd:stasis-ram (deleted)"; the device and all before it in hex.
Result<uint64_t> first_mapping_of(pid_t pid, int file) {
  struct stat status {};
  if (::fstat(file, &status) != 0) return fail_errno(errno, "look at the mapped file");
  std::ifstream maps("/proc/" + std::to_string(pid) + "/maps");
  std::string line;
  while (std::getline(maps, line)) {
    std::istringstream fields(line);
    uint64_t start = 0, end = 0, offset = 0, inode = 0;
    unsigned device_major = 0, device_minor = 0;
    char separator = 0;
    std::string permissions;
    fields >> std::hex >> start >> separator >> end >> permissions >> offset >> device_major >> separator >>
        device_minor >> std::dec >> inode;
    if (fields && inode == status.st_ino && ::makedev(device_major, device_minor) == status.st_dev) return start;
  }
  return fail(Code::kNotFound, "process " + std::to_string(pid) + " has not mapped that file");
}

Result<uint64_t> max_mappings_of_a_process() {
  std::ifstream file("/proc/sys/vm/max_map_count");
  uint64_t count = 0;
  file >> count;
  if (!file) return fail(Code::kUnavailable, "/proc/sys/vm/max_map_count cannot be read");
  return count;
}

}  // namespace stasis
