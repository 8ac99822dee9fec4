// What a state saved under KVM depends on: the host's CPU.
#pragma once

#include <string>

namespace stasis::vmm {

// The "model name" of /proc/cpuinfo; "unknown" if there is none.
std::string host_cpu_model();

}  // namespace stasis::vmm
