// How much memory a process has, and may have.
#pragma once

#include <sys/types.h>

#include <cstdint>

#include "base/result.h"

namespace stasis {

// Resident bytes, from /proc/PID/statm; 0 if there is no such process.
uint64_t resident_bytes(pid_t pid);
// vm.max_map_count.
Result<uint64_t> max_mappings_of_a_process();

}  // namespace stasis
