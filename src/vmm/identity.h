// What tells this host's VMM from the one that had its place before an upgrade, or before the disk was moved to another
// host, without starting it: the size and time of its program, the processor, and whether there is KVM. It also
// changes where check_compatible() would allow a state; who must be certain asks that one.
#pragma once

#include <string>

namespace stasis::vmm {

inline constexpr const char* kQemuProgram = "qemu-system-x86_64";

// `vmm`: "qemu", "firecracker". One line of text.
std::string vmm_identity(const std::string& vmm);

}  // namespace stasis::vmm
