// An archive of a small guest, and what it holds: for imports.
#pragma once

#include "snapshot/archive.h"
#include "snapshot/testing/faulty_store.h"

namespace stasis::snapshot::testing {

struct Archived {
  Bytes archive;
  FaultyStore::Content content;
};

// Made once: a machine's memory of 1 MiB, the least that it can have, and a disk, both mostly zeros.
inline const Archived& archived_guest() {
  static const Archived made = [] {
    FaultyStore store;
    Random random(5);
    Memory memory(1 << 20);
    memory.write(3 * kBlockSize, random_bytes(random, 5 * kBlockSize));
    memory.write(200 * kBlockSize, random_bytes(random, kBlockSize));
    Disk disk(store, 24 * kBlockSize);
    disk.write(1, random_bytes(random, 4 * kBlockSize));
    BlockMap memory_map = BlockMap::zeros(memory.content.size()).value();
    const SnapshotId id = SnapshotId::random();
    EXPECT_TRUE(snapshot_all(store.healthy, id, memory, memory_map, disk, {memory.whole()}));
    Manifest manifest = store.healthy.load(id).value();
    manifest.machine = {1, 1};
    manifest.vmm = "qemu";
    EXPECT_TRUE(store.healthy.replace(manifest));
    Archived result{{}, {memory.content, disk.content}};
    EXPECT_TRUE(export_snapshot(store.healthy, id, {}, [&](std::span<const std::byte> piece) -> Status {
      result.archive.insert(result.archive.end(), piece.begin(), piece.end());
      return {};
    }));
    return result;
  }();
  return made;
}

inline Result<Manifest> import_archived(const Store& store, SnapshotId id) {
  ImportOptions options;
  options.id = id;
  size_t position = 0;
  return import_snapshot(store, options, [&](std::span<std::byte> out) -> Result<size_t> {
    const Bytes& archive = archived_guest().archive;
    const size_t n = std::min(out.size(), archive.size() - position);
    std::copy_n(archive.begin() + static_cast<ptrdiff_t>(position), n, out.begin());
    position += n;
    return n;
  });
}

}  // namespace stasis::snapshot::testing
