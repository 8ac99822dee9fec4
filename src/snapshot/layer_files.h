// What both forms of a layer have in common as files.
#pragma once

#include "snapshot/layer.h"

namespace stasis::snapshot {

// Of a layer that is named and cannot be opened: one that is not there is kDataLoss.
Error lost_layer(Error error, LayerId id);

// kInvalidArgument for a nil id or a size that no address space has; kAlreadyExists if there is anything of this layer.
Status check_new_layer(FileSystem& fs, const Path& layers_dir, LayerId id, uint64_t size);

// kInvalidArgument unless `range` is of whole blocks, within `size`, and not before `position`.
Status check_layer_range(Range range, uint64_t position, uint64_t size);

}  // namespace stasis::snapshot
