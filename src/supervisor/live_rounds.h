// Copying ahead of a snapshot of a guest that runs: in rounds, each of what was written during the one before, until
// what is left is little or does not get less.
#pragma once

#include <functional>

#include "supervisor/live_copy.h"
#include "supervisor/protocol.h"
#include "vmm/vmm.h"

namespace stasis::supervisor {

struct RoundLimits {
  // So little is left to the guest's stop: 1 MiB is copied in less than a millisecond, a fraction of what saving the
  // device state takes.
  uint64_t small = uint64_t{1} << 20;
  // After so many rounds the guest is stopped for what is left, however much that is.
  uint32_t most = 8;
};

// Copies what `look` tells, which is Vmm::look_ahead(), until a round is small or more than three quarters of the one
// before: a guest that writes as fast as it is copied does not get quieter. Where only a stopped machine can be asked
// (kUnimplemented) there are no rounds and a reason, and what was copied is of no use.
Result<LiveStats> copy_in_rounds(LiveCopy& copy, const std::function<Result<vmm::SavedMemory>()>& look,
                                 RoundLimits limits = {});

}  // namespace stasis::supervisor
