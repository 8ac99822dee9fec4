// The memory files that Firecracker writes: dense (Full), or sparse with a hole for every page that was not written
// (Diff).
#pragma once

#include "vmm/firecracker/requests.h"
#include "vmm/vmm.h"

namespace stasis::vmm {

// True if files in `directory` tell a hole from data to the page of 4 KiB, shown on a file made there. Not so on a
// tmpfs with huge pages or on large blocks: an unwritten page would look like one that was written with zeros.
Result<bool> holes_are_exact(const Path& directory);

// Opens what Firecracker wrote. Candidates: all of a Full file, the data of a Diff file. kInternal if the file is not
// what it should be.
Result<SavedMemory> open_memory_file(const Path& file, uint64_t memory_bytes, SnapshotType type);

}  // namespace stasis::vmm
