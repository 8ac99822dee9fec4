// Archives in memory; and one of a small guest, with what it holds.
#pragma once

#include "snapshot/kept_import.h"
#include "snapshot/testing/faulty_store.h"

namespace stasis::snapshot::testing {

inline Result<Bytes> archive_of(const Store& store, SnapshotId id, const std::string& note = "") {
  ExportOptions options;
  options.note = note;
  Bytes archive;
  STASIS_TRY(export_snapshot(store, id, options, [&](std::span<const std::byte> piece) -> Status {
    archive.insert(archive.end(), piece.begin(), piece.end());
    return {};
  }));
  return archive;
}

// The archive's bytes [begin, end), and then, if it has more, an error: the sender has gone.
inline ArchiveSource bytes_of(const Bytes& archive, size_t begin, size_t end) {
  auto position = std::make_shared<size_t>(begin);
  return [&archive, position, end](std::span<std::byte> out) -> Result<size_t> {
    const size_t n = std::min(out.size(), end - *position);
    if (n == 0 && end < archive.size()) return fail(Code::kCancelled, "the sender has gone");
    std::copy_n(archive.begin() + static_cast<ptrdiff_t>(*position), n, out.begin());
    *position += n;
    return n;
  };
}

inline Result<Manifest> import_archive(const Store& store, SnapshotId id, const Bytes& archive) {
  return import_snapshot(store, ImportOptions{id}, bytes_of(archive, 0, archive.size()));
}

struct Archived {
  Bytes archive;
  FaultyStore::Content content;
};

// The archive of a guest of this memory (whole MiB) and disk; `store`, on which the disk stands, is only for making it.
inline Bytes make_archive(FaultyStore& store, Memory& memory, Disk& disk, const std::string& note = "") {
  BlockMap memory_map = BlockMap::zeros(memory.content.size()).value();
  const SnapshotId id = SnapshotId::random();
  EXPECT_TRUE(snapshot_all(store.healthy, id, memory, memory_map, disk, {memory.whole()}));
  return archive_of(store.healthy, id, note).value();
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

inline ArchiveSource archived_bytes(size_t begin, size_t end) { return bytes_of(archived_guest().archive, begin, end); }

// Imported in two: the sender goes half-way, and another one sends the rest.
inline Result<Manifest> import_archived_in_two(const Store& store, SnapshotId id, const Uuid& stream) {
  const size_t whole = archived_guest().archive.size();
  const auto broken =
      import_kept_snapshot(store, ImportOptions{SnapshotId::random()}, {stream, {}}, archived_bytes(0, whole / 2));
  EXPECT_FALSE(broken);
  const Kept from = find_kept_import(store, stream).value_or(Kept());
  return import_kept_snapshot(store, ImportOptions{id}, {stream, from}, archived_bytes(from.bytes, whole));
}

}  // namespace stasis::snapshot::testing
