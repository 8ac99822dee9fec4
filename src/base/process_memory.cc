#include "base/process_memory.h"

#include <unistd.h>

#include <fstream>
#include <string>

namespace stasis {

uint64_t resident_bytes(pid_t pid) {
  std::ifstream statm("/proc/" + std::to_string(pid) + "/statm");
  uint64_t total_pages = 0;
  uint64_t resident_pages = 0;
  statm >> total_pages >> resident_pages;
  return statm ? resident_pages * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE)) : 0;
}

Result<uint64_t> max_mappings_of_a_process() {
  std::ifstream file("/proc/sys/vm/max_map_count");
  uint64_t count = 0;
  file >> count;
  if (!file) return fail(Code::kUnavailable, "/proc/sys/vm/max_map_count cannot be read");
  return count;
}

}  // namespace stasis
