// An archive of a small guest, and what it holds: for imports.
#pragma once

#include "snapshot/kept_import.h"
#include "snapshot/testing/faulty_store.h"

namespace stasis::snapshot::testing {

struct Archived {
  Bytes archive;
  FaultyStore::Content content;
};

// The archive of a guest of this memory (whole MiB) and disk; `store`, on which the disk stands, is only for making it.
inline Bytes make_archive(FaultyStore& store, Memory& memory, Disk& disk, const std::string& note = "") {
  BlockMap memory_map = BlockMap::zeros(memory.content.size()).value();
  const SnapshotId id = SnapshotId::random();
  EXPECT_TRUE(snapshot_all(store.healthy, id, memory, memory_map, disk, {memory.whole()}));
  Manifest manifest = store.healthy.load(id).value();
  manifest.machine = {1, static_cast<uint32_t>(memory.content.size() >> 20)};
  manifest.vmm = "qemu";
  EXPECT_TRUE(store.healthy.replace(manifest));
  ExportOptions options;
  options.note = note;
  Bytes archive;
  EXPECT_TRUE(export_snapshot(store.healthy, id, options, [&](std::span<const std::byte> piece) -> Status {
    archive.insert(archive.end(), piece.begin(), piece.end());
    return {};
  }));
  return archive;
}

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
    Bytes archive = make_archive(store, memory, disk);
    return Archived{std::move(archive), {memory.content, disk.content}};
  }();
  return made;
}

// The archive's bytes [begin, end), and then an error: the sender has gone.
inline ArchiveSource archived_bytes(size_t begin, size_t end) {
  auto position = std::make_shared<size_t>(begin);
  return [position, end](std::span<std::byte> out) -> Result<size_t> {
    const Bytes& archive = archived_guest().archive;
    const size_t n = std::min(out.size(), end - *position);
    if (n == 0 && end < archive.size()) return fail(Code::kCancelled, "the sender has gone");
    std::copy_n(archive.begin() + static_cast<ptrdiff_t>(*position), n, out.begin());
    *position += n;
    return n;
  };
}

inline Result<Manifest> import_archived(const Store& store, SnapshotId id) {
  return import_snapshot(store, ImportOptions{id}, archived_bytes(0, archived_guest().archive.size()));
}

// The same, but the sender goes half-way, and another one sends the rest.
inline Result<Manifest> import_archived_in_two(const Store& store, SnapshotId id, const Uuid& stream) {
  const size_t whole = archived_guest().archive.size();
  const auto broken =
      import_kept_snapshot(store, ImportOptions{SnapshotId::random()}, {stream, {}}, archived_bytes(0, whole / 2));
  EXPECT_FALSE(broken);
  const Kept from = find_kept_import(store, stream).value_or(Kept());
  return import_kept_snapshot(store, ImportOptions{id}, {stream, from}, archived_bytes(from.bytes, whole));
}

}  // namespace stasis::snapshot::testing
