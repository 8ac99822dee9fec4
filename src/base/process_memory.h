// How much memory a process has.
#pragma once

#include <sys/types.h>

#include <cstdint>

namespace stasis {

// Resident bytes, from /proc/PID/statm; 0 if there is no such process.
uint64_t resident_bytes(pid_t pid);

}  // namespace stasis
