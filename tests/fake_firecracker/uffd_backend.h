// The double's side of the userfaultfd handshake: registers every region for missing pages, and sends regions and
// descriptor in one message to whoever listens at `socket`. The connection stays open until the process ends.
#pragma once

#include "base/file_system.h"
#include "guest_memory.h"

namespace fake {

stasis::Status hand_over_memory(const GuestMemory& memory, const stasis::Path& socket);

}  // namespace fake
