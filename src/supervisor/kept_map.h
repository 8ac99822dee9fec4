// A sandbox's own record of a block map that it stands on, in its directory: what keeps the map's layers in the store
// while the sandbox runs, whatever becomes of the snapshots that named them.
#pragma once

#include <memory>

#include "snapshot/layer.h"

namespace stasis::supervisor {

// Replaces the record. After a failure the one before stands.
Status keep_map(FileSystem& fs, const Path& record, const snapshot::BlockMap& map);

// The content behind `map`, kept from now on instead of `before` (AddressSpace::open()), if there is one. After a
// failure the record before stands: whoever goes on with what that names has its layers.
Result<std::shared_ptr<snapshot::AddressSpace>> open_and_keep(FileSystem& fs, const Path& record,
                                                              const Path& layers_dir, snapshot::BlockMap map,
                                                              const snapshot::AddressSpace* before);

}  // namespace stasis::supervisor
