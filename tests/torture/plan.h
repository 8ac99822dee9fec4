// What a process does to a store before it is killed, decided beforehand by a seed: so that its parent knows what must
// be there, whatever of it was done.
#pragma once

#include <optional>
#include <vector>

#include "snapshot/testing/faulty_store.h"

namespace stasis::snapshot::testing {

using Content = FaultyStore::Content;
using Listed = std::map<SnapshotId, Content>;

struct Write {
  uint64_t first_block = 0;
  Bytes bytes;  // empty: discard or zero `count` blocks
  uint64_t count = 0;
};

enum class Kind { kSnapshot, kRemove, kCollect, kImport, kImportArchive, kCompact };
inline constexpr Kind kKinds[] = {Kind::kSnapshot, Kind::kRemove,        Kind::kCollect,
                                  Kind::kImport,   Kind::kImportArchive, Kind::kCompact};
const char* name_of(Kind kind);

struct Step {
  Kind kind = Kind::kCollect;
  SnapshotId id;              // of all but kCollect and kImport
  std::vector<Write> memory;  // before a snapshot
  std::vector<Write> disk;
  Content content;  // of a snapshot that is made
};

struct Plan {
  std::optional<SnapshotId> start;  // the snapshot that the guest is started from; nothing: one that is all zeros
  std::vector<Step> steps;
};

inline constexpr uint64_t kMemorySize = 40 * kBlockSize;
inline constexpr uint64_t kDiskSize = 24 * kBlockSize;

// Up to two steps of any kind, and then one of `last`.
Plan make_plan(Random& random, const Listed& listed, Kind last);

}  // namespace stasis::snapshot::testing
