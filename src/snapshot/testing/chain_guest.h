// A guest whose snapshots form a chain in a FaultyStore, and what each of them holds. For tests of compaction.
#pragma once

#include <gtest/gtest.h>

#include "snapshot/testing/faulty_store.h"

namespace stasis::snapshot::testing {

class ChainGuest {
 public:
  static constexpr uint64_t kMemorySize = 300 * kBlockSize;  // more than one window of the copy
  static constexpr uint64_t kDiskSize = 100 * kBlockSize;

  explicit ChainGuest(FaultyStore& store, uint64_t seed)
      : random(seed), memory(kMemorySize), disk(store, kDiskSize), store_(store) {}

  void change() {
    memory.write(pick(random, 0, 280) * kBlockSize, random_bytes(random, 20 * kBlockSize));
    memory.zero(blocks(pick(random, 0, 290), 10));
    disk.write(pick(random, 0, 80), random_bytes(random, 20 * kBlockSize));
    disk.discard(pick(random, 0, 90), 10);
  }
  SnapshotId snapshot() {
    const SnapshotId id = SnapshotId::random();
    known[id] = {memory.content, disk.content};
    const Status taken = testing::snapshot_all(store_.healthy, id, memory, memory_map, disk, {memory.whole()});
    EXPECT_TRUE(taken) << taken.error().message;
    return id;
  }
  SnapshotId chain(int generations) {
    SnapshotId id;
    for (int i = 0; i < generations; ++i) change(), id = snapshot();
    return id;
  }
  std::vector<BlockMap> roots() const { return {memory_map, disk.map}; }

  Random random;
  Memory memory;
  BlockMap memory_map = BlockMap::zeros(kMemorySize).value();
  Disk disk;
  std::map<SnapshotId, FaultyStore::Content> known;

 private:
  FaultyStore& store_;
};

inline BlockMap memory_map_of(const Store& store, SnapshotId id) {
  return store.read_map(id, *store.load(id).value().memory_map).value();
}

}  // namespace stasis::snapshot::testing
