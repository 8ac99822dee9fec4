// Whole operations on a store, each to be interrupted at every call to the file system: a table, so that every way of
// interrupting them covers all. A new operation of the store is one more entry in operations().
#pragma once

#include "base/clock.h"
#include "snapshot/compact.h"
#include "snapshot/testing/archived.h"
#include "snapshot/testing/world.h"

namespace stasis::snapshot::testing {

struct Operation {
  const char* name;
  uint64_t least_calls;  // it makes at least so many calls: fewer, and nothing was tested
  // Runs on world.store.store, which may fail; tells the world what it is about to do. The first error that it meets.
  Status (*run)(World&);
  void (*run_before)(World&) = nullptr;  // makes what the operation needs
};

inline Status run_snapshot(World& world) {
  world.expect_new(world.third);
  Status taken = world.take(world.store.store, world.third);
  world.settle(taken.has_value());
  return taken;
}

inline Status run_remove(World& world) {
  world.expect_removed(world.first);
  Status removed = world.store.store.remove(world.first);
  world.settle(removed.has_value());
  return removed;
}

// Collects a store with all kinds of rubbish, while the guest runs.
inline Status run_collect(World& world) {
  auto collected = world.store.store.collect(world.roots());
  if (!collected) return fail(std::move(collected).error());
  return {};
}

// A removal that was killed when the manifest had gone: a power cut may bring that back.
inline void leave_half_removed(World& world, SnapshotId id) {
  world.expect_removed(id);
  world.store.faulty.fail_at(2, EIO, ::stasis::testing::FaultyFileSystem::Mode::kFromThenOn);
  EXPECT_FALSE(world.store.store.remove(id));
  world.store.faulty.heal();
  world.settle(false);
}

inline void leave_rubbish(World& world) {
  leave_half_removed(world, world.first);
  const Path begun = world.store.healthy.begin(SnapshotId::random()).value();
  for (const Path& path : {begun / "state", begun / "manifest.tmp", world.store.root / "layers" / "x.raw.tmp",
                           world.store.healthy.snapshot_dir(world.second) / "manifest.tmp"}) {
    EXPECT_TRUE(world.store.quiet.create(path));
  }
}

inline Status run_import(World& world) {
  auto manifest = import_image(world.store.store, world.image);
  if (!manifest) return fail(std::move(manifest).error());
  world.possible[manifest->id] = {{}, world.image_disk};
  world.certain.insert(manifest->id);
  world.image_found = true;
  return {};
}

// The snapshot of an archive.
inline Status run_import_archive(World& world) {
  world.expect_new(world.third, archived_guest().content);
  auto manifest = import_archive(world.store.store, world.third, archived_guest().archive);
  world.settle(manifest.has_value());
  if (!manifest) return fail(std::move(manifest).error());
  return {};
}

// With a grace period: what was begun or removed just now is too young, the layers that only it had are not.
inline Status run_collect_old(World& world) {
  CollectOptions options;
  options.grace = std::chrono::hours(1);
  options.now_unix_ns = unix_time_ms() * 1'000'000;
  auto collected = world.store.store.collect(world.roots(), options);
  if (!collected) return fail(std::move(collected).error());
  return {};
}

inline void leave_old_layers(World& world) {
  EXPECT_TRUE(run_import_archive(world));
  leave_half_removed(world, world.third);
  const auto then = std::filesystem::file_time_type::clock::now() - std::chrono::hours(2);
  for (const auto& entry : std::filesystem::directory_iterator(world.store.root / "layers")) {
    std::filesystem::last_write_time(entry.path(), then);
  }
}

// The same in two pieces, of which the first is kept until the snapshot is there.
inline Status run_import_kept(World& world) {
  const Uuid stream = Uuid::random();
  world.store.arriving = archived_guest().archive;
  world.expect_new(world.third, archived_guest().content);
  auto manifest = import_archived_in_two(world.store.store, world.third, stream);
  world.settle(manifest.has_value());
  if (!manifest) return fail(std::move(manifest).error());
  return forget_kept_import(world.store.store, stream);
}

// Of the newest snapshot, above which the guest runs.
inline Status run_compact(World& world) {
  auto compacted = compact(world.store.store, world.second);
  if (!compacted) return fail(std::move(compacted).error());
  EXPECT_EQ(compacted->spaces, 2U);
  return {};
}

// The collection takes the layers that only the maps before the compaction named, whatever became of it.
inline Status run_compact_collect(World& world) {
  Status compacted = run_compact(world);
  Status collected = run_collect(world);
  return compacted ? collected : compacted;
}

// The old layers are nobody's but the newest snapshot's.
inline void leave_one_snapshot(World& world) {
  world.forget_first();
  world.reopen();
}

// Overwriting a name: the new snapshot, then the old one goes, then what only it needed; each is tried whatever
// happened to the one before.
inline Status run_overwrite(World& world) {
  const Status taken = run_snapshot(world);
  const Status removed = run_remove(world);
  const Status collected = run_collect(world);
  for (const Status& status : {taken, removed}) {
    if (!status) return status;
  }
  return collected;
}

// The same snapshot in another form: the guest stands on it.
inline Status run_pack(World& world) {
  auto packed = compact(world.store.store, world.second, {.form = LayerForm::kPacked});
  if (!packed) return fail(std::move(packed).error());
  return {};
}

inline const std::vector<Operation>& operations() {
  static const std::vector<Operation> table{
      {"snapshot", 60, run_snapshot},
      {"remove", 5, run_remove},
      {"collect", 20, run_collect, leave_rubbish},
      {"collectOld", 30, run_collect_old, leave_old_layers},
      {"import", 30, run_import},
      {"importArchive", 50, run_import_archive},
      {"importKept", 80, run_import_kept},
      {"overwrite", 80, run_overwrite},
      {"compact", 60, run_compact},
      {"compactCollect", 80, run_compact_collect, leave_one_snapshot},
      {"pack", 60, run_pack},
  };
  return table;
}

}  // namespace stasis::snapshot::testing
