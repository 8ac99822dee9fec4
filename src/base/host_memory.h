// How much memory the host has left.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"

namespace stasis {

struct HostMemory {
  uint64_t total_bytes = 0;
  uint64_t available_bytes = 0;  // for new programs, without swapping (MemAvailable)
  double stalled_percent = 0;    // of the last ten seconds, in which somebody waited for memory; 0 if nobody counts
};

Result<HostMemory> host_memory();
// From the text of /proc/meminfo and of /proc/pressure/memory (empty where the kernel does not count).
Result<HostMemory> parse_host_memory(const std::string& meminfo, const std::string& pressure);

}  // namespace stasis
