// How much memory a process has, and may have, and where.
#pragma once

#include <sys/types.h>

#include <cstdint>

#include "base/result.h"

namespace stasis {

// Resident bytes, from /proc/PID/statm; 0 if there is no such process.
uint64_t resident_bytes(pid_t pid);
// Where it has mapped the file, at the lowest address, from /proc/PID/maps (0.2 ms for a VMM). kNotFound: nowhere.
Result<uint64_t> first_mapping_of(pid_t pid, int file);
// vm.max_map_count.
Result<uint64_t> max_mappings_of_a_process();

}  // namespace stasis
