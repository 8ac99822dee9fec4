// Confinement of the calling process, for one that is about to read what somebody hostile wrote. Afterwards it is the
// user nobody, in namespaces where there is no file and no network; it can compute, read descriptors that it has and
// send on sockets that it has, and every other system call kills it (SIGSYS), as does the end of its time (SIGALRM).
// Memory beyond the limit is refused. Nothing of it can be undone.
#pragma once

#include <chrono>
#include <cstdint>

#include "base/result.h"

namespace stasis {

struct ConfinementLimits {
  uint64_t address_space =
      0;  // bytes, with program and libraries. Not in builds with a sanitizer, which need terabytes
  std::chrono::seconds time{0};  // from now, by the clock on the wall
};

// Needs root, and that the process has one thread. After an error it is confined in part: end it. Whether it dies with
// its parent (SpawnOptions::die_with_parent) stays as it was.
Status confine_this_process(const ConfinementLimits& limits);

}  // namespace stasis
