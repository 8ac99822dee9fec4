// The working set of a snapshot: which blocks of memory a restore touched, in order and with the time, until its guest
// was at work. It is kept beside the snapshot (`working_set` in its directory, not named by the manifest; format in
// docs/format.md) and only ever makes the next restore faster: without it, or with a damaged one, everything is right.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "snapshot/store.h"

namespace stasis::snapshot {

inline constexpr char kWorkingSetFile[] = "working_set";
inline constexpr size_t kMaxWorkingSetEntries = 65'536;
// What one restore writes down at most.
inline constexpr size_t kMaxRecordedFaults = 8192;
// More than this is not brought in ahead: 10 ms of copying, and what a small host can spare for a guess.
inline constexpr uint64_t kMaxPrefetchBytes = uint64_t{32} << 20;

struct WorkingSetEntry {
  Range range;           // of the address space, multiples of kBlockSize
  uint32_t when_us = 0;  // since the memory was handed over
  friend bool operator==(const WorkingSetEntry&, const WorkingSetEntry&) = default;
};

struct WorkingSet {
  uint64_t memory_size = 0;  // bytes: of the address space it belongs to
  uint32_t restores = 0;     // that it was seen in; 0: a guess, what the snapshot's own generation changed
  std::vector<WorkingSetEntry> entries;

  // kInvalidArgument for entries that are too many, not aligned, empty, or outside of the memory.
  Result<std::vector<std::byte>> encode() const;
  // kDataLoss for anything that encode() does not make.
  static Result<WorkingSet> decode(std::span<const std::byte> bytes);
};

// What both restores touched, in the order of the first, as a set of one restore more.
WorkingSet intersect(const WorkingSet& first, const WorkingSet& second);

// What a prefetch brings in: sorted, disjoint, merged; of the entries in their order as many as make `max_bytes`, of
// the last one what fits.
std::vector<Range> prefetch_ranges(std::span<const WorkingSetEntry> entries, uint64_t max_bytes);

// kNotFound if none was kept.
Result<WorkingSet> load_working_set(const Store& store, SnapshotId id);
// A first guess for a snapshot that is being written: what its generation changed (what `map` finds in the layer
// `newest`), which is what the guest was at work on, and then `touched` (what the restore before it needed), as much as
// a prefetch brings. Written like a part before publish(); not synced, because a torn one is only ignored.
Status write_first_guess(const Store& store, SnapshotId id, const BlockMap& map, LayerId newest,
                         std::span<const WorkingSetEntry> touched);
// Keeps it beside a published snapshot, over an older one. Takes the shared lock.
Status keep_working_set(const Store& store, SnapshotId id, const WorkingSet& set);

}  // namespace stasis::snapshot
