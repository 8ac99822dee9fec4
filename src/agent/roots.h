// What the store must keep for the sandboxes of this host: the block maps that each has in its directory.
#pragma once

#include <vector>

#include "snapshot/block_map.h"

namespace stasis::agent {

// Fails if a block map that is there cannot be read: then nothing may be collected.
Result<std::vector<snapshot::BlockMap>> sandbox_roots(const Path& sandboxes);

}  // namespace stasis::agent
