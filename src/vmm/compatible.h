// Whether a device state that one VMM saved may be loaded by another. QEMU's microvm machine has no versions of its
// own, and a stable branch keeps its state's format; Firecracker's format has a version that it checks itself, but what
// a guest has seen of the processor must be there again. So: the same program, the same major and minor version, the
// same processor model.
#pragma once

#include "base/result.h"
#include "vmm/vmm.h"

namespace stasis::vmm {

// kFailedPrecondition, naming both, if it may not.
Status check_compatible(const VmmInfo& saved_with, const VmmInfo& here);

}  // namespace stasis::vmm
