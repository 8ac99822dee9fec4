// Which snapshots are worth compacting by themselves, and in which order. Reads the block maps of the whole store and
// changes nothing.
#pragma once

#include <functional>
#include <vector>

#include "snapshot/compact.h"

namespace stasis::snapshot {

// Every layer costs whoever restores two files to open, a table of checksums in memory, and reads of its own for what
// lies side by side. And a line of pauses and resumes is copied at most once in so many generations.
inline constexpr size_t kLongChain = 32;
// A snapshot that so many sandboxes were started from is a template: one layer can be mapped as one file.
inline constexpr uint64_t kStartedOften = 4;
// A snapshot of a sandbox that is resumed and paused again is soon followed by the next one.
inline constexpr int64_t kSettledMs = 10 * 60'000;

// One address space of one snapshot.
struct SpaceUse {
  size_t layers = 0;
  uint64_t live_bytes = 0;
  uint64_t own_bytes = 0;  // stored in layers that nothing else names
  bool packed = false;     // some of the layers are: somebody wanted it small
};

struct SnapshotUse {
  SnapshotId id;
  int64_t created_unix_ms = 0;
  bool has_children = false;  // another snapshot was made from it
  uint64_t starts = 0;        // sandboxes made from it lately
  SpaceUse memory;
  SpaceUse disk;
};

struct CompactPlan {
  SnapshotId id;
  bool memory = false;
  bool disk = false;
  uint64_t starts = 0;
  uint64_t live_bytes = 0;  // what will be written
};

// What of `uses` is worth it at `now_unix_ms`, what is started most often first.
std::vector<CompactPlan> plan_compactions(const std::vector<SnapshotUse>& uses, int64_t now_unix_ms);

// `starts` tells how often a snapshot was started. `roots` as for a collection: what running sandboxes need is not
// given back. Snapshots that cannot be read are passed over.
Result<std::vector<SnapshotUse>> survey(const Store& store, std::span<const BlockMap> roots,
                                        const std::function<uint64_t(SnapshotId)>& starts);

}  // namespace stasis::snapshot
