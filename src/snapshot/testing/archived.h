// Archives in memory; and one of a small guest, with what it holds.
#pragma once

#include "snapshot/archive.h"
#include "snapshot/testing/faulty_store.h"

namespace stasis::snapshot::testing {

inline Result<Bytes> archive_of(const Store& store, SnapshotId id) {
  Bytes archive;
  STASIS_TRY(export_snapshot(store, id, {}, [&](std::span<const std::byte> piece) -> Status {
    archive.insert(archive.end(), piece.begin(), piece.end());
    return {};
  }));
  return archive;
}

inline Result<Manifest> import_archive(const Store& store, SnapshotId id, const Bytes& archive) {
  ImportOptions options;
  options.id = id;
  size_t position = 0;
  return import_snapshot(store, options, [&](std::span<std::byte> out) -> Result<size_t> {
    const size_t n = std::min(out.size(), archive.size() - position);
    std::copy_n(archive.begin() + static_cast<ptrdiff_t>(position), n, out.begin());
    position += n;
    return n;
  });
}

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
    return Archived{archive_of(store.healthy, id).value(), {memory.content, disk.content}};
  }();
  return made;
}

}  // namespace stasis::snapshot::testing
