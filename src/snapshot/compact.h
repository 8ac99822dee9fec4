// Compaction: the blocks that one snapshot uses, copied from its layers into one fresh layer for each address space: a
// raw one, or, to pack a snapshot, a packed one. The snapshot keeps its id, its parents and every byte of its content;
// its block maps are written anew under other file names and its manifest replaced atomically. The layers and maps it
// named before stay until a collection finds that nothing needs them: a reader that has loaded the old manifest under
// the store's shared lock finds everything.
//
// The copy itself holds no lock of the store: snapshots, resumes, removals and collections go on meanwhile. Only the
// publication (two renames, two small files, a manifest) takes the shared lock and the snapshot's own.
#pragma once

#include <set>

#include "base/rate_limit.h"
#include "snapshot/store.h"

namespace stasis::snapshot {

struct CompactOptions {
  bool memory = true;  // which address spaces; one that would gain nothing is passed over
  bool disk = true;
  RateLimit limit = {};              // of bytes read and written together, and what cancels
  LayerForm form = LayerForm::kRaw;  // of the fresh layers
  // Layers that stay as they are, and the map's extents in them: what others need too is not given back by a copy.
  std::set<LayerId> keep = {};
};

struct CompactResult {
  uint64_t spaces = 0;                // rewritten: 0 if there was nothing to gain
  uint64_t layers_before = 0;         // of those spaces, without those that were kept; afterwards one each
  uint64_t live_bytes = 0;            // copied: what the maps use
  uint64_t read_bytes = 0;            // asked of the layers: whole frames, since those have the checksums
  uint64_t stored_before = 0;         // on the device, by layers_before
  uint64_t stored_after = 0;          // by the fresh ones
  std::vector<LayerId> written = {};  // the fresh layers
};

// kNotFound if there is no such snapshot (any more); kAborted if it was changed meanwhile; kCancelled; kDataLoss if a
// frame is damaged. On any error the snapshot is what it was and what was written is removed, or swept by the next
// collection.
Result<CompactResult> compact(const Store& store, SnapshotId id, CompactOptions options = {});

// True for a map that compaction into layers of this form would better: it names several layers, or one that is of the
// other form, or mostly dead.
Result<bool> worth_compacting(const Store& store, const BlockMap& map, LayerForm form = LayerForm::kRaw);

// Bytes of the extents that are not zeros.
uint64_t live_bytes(const BlockMap& map);

// Whether rewriting gives back at least what it writes: layers of `stored` bytes, which nobody else needs, hold twice
// the live bytes of their map or more. And 1 MiB, for file systems account for their own blocks too: tiny layers would
// look mostly dead for ever.
inline bool mostly_dead(uint64_t stored, uint64_t live) { return stored >= 2 * live + (uint64_t{1} << 20); }

}  // namespace stasis::snapshot
