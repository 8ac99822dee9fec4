// What the store must keep for the sandboxes of this host: the block maps that each has in its directory.
#pragma once

#include <vector>

#include "snapshot/holders.h"

namespace stasis::agent {

// One for each sandbox. Fails if a block map that is there cannot be read: then nothing may be collected.
Result<std::vector<snapshot::SandboxMaps>> sandbox_maps(const Path& sandboxes);
// The maps alone.
Result<std::vector<snapshot::BlockMap>> sandbox_roots(const Path& sandboxes);
// Of a sandbox whose processes have ended: the store need not keep anything for it.
void forget_maps(const Path& sandbox);

}  // namespace stasis::agent
