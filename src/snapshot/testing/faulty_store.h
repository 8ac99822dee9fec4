// A store behind a FileSystem that fails on command, and what must be true of it whatever failed: what is listed
// restores bit by bit, and after a collection there is nothing else.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <set>

#include "base/testing/faulty_file_system.h"
#include "snapshot/kept_import.h"
#include "snapshot/testing/fixtures.h"

namespace stasis::snapshot::testing {

class FaultyStore {
 public:
  // Memory and disk of a snapshot; no memory: an image.
  struct Content {
    Bytes memory;
    Bytes disk;
  };

  // Makes what stands between the store and the real files in the directory given.
  using MakeDevice = std::function<std::unique_ptr<FileSystem>(const Path&)>;
  FaultyStore() = default;
  explicit FaultyStore(const MakeDevice& make) : device(make(dir.path())) {}

  // The names of all files below the store, except its lock.
  std::set<std::string> files() const {
    std::set<std::string> names;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(root)) {
      if (entry.is_regular_file() && entry.path() != root / "lock") names.insert(entry.path().lexically_relative(root));
    }
    return names;
  }

  // Every listed snapshot is one of `known` and restores to its content.
  void expect_listed_snapshots_whole(const std::map<SnapshotId, Content>& known) const {
    const auto ids = healthy.list();
    ASSERT_TRUE(ids) << ids.error().message;
    for (const SnapshotId id : *ids) {
      ASSERT_TRUE(known.contains(id));
      const auto manifest = healthy.load(id);
      ASSERT_TRUE(manifest) << manifest.error().message;
      for (const auto& part : {manifest->vm_state, manifest->vmlinux, manifest->initrd}) {
        ASSERT_TRUE(!part || healthy.read_part(id, *part)) << part->file << " of " << id.text();
      }
      ASSERT_EQ(manifest->memory_map.has_value(), !known.at(id).memory.empty()) << id.text();
      ASSERT_TRUE(!manifest->memory_map || read(id, *manifest->memory_map) == known.at(id).memory)
          << "memory of " << id.text();
      ASSERT_TRUE(read(id, *manifest->disk_map) == known.at(id).disk) << "disk of " << id.text();
    }
  }

  // There are the files of listed snapshots, the layers they or `roots` name, what is kept of `arriving`, and nothing
  // else.
  void expect_nothing_else(const std::vector<BlockMap>& roots = {}) {
    std::set<std::string> expected;
    const auto expect_layers = [&](const BlockMap& map) {
      for (const LayerId layer : map.layers()) {
        const auto file = find_layer(quiet, healthy.layers_dir(), layer);
        if (file && file->form == LayerForm::kPacked) {
          expected.insert("layers/" + layer.text() + ".packed");
          continue;
        }
        expected.insert("layers/" + layer.text() + ".raw");
        expected.insert("layers/" + layer.text() + ".sums");
      }
    };
    for (const BlockMap& map : roots) expect_layers(map);
    const std::vector<SnapshotId> ids = healthy.list().value();
    for (const SnapshotId id : ids) {
      const Manifest manifest = healthy.load(id).value();
      expected.insert("snapshots/" + id.text() + "/manifest");
      for (const Part& part : manifest.parts()) expected.insert("snapshots/" + id.text() + "/" + part.file);
      for (const Part& part : manifest.maps()) expect_layers(healthy.read_map(id, part).value());
    }
    expect_kept_imports(expected);
    EXPECT_EQ(files(), expected);
    for (const auto& entry : std::filesystem::directory_iterator(root / "snapshots")) {
      EXPECT_TRUE(std::filesystem::exists(entry.path() / "manifest")) << entry.path();
    }
  }

  Bytes arriving;  // the archive of which something may be kept
  ::stasis::testing::TempDir dir;
  const Path root = dir.path() / "store";
  const std::unique_ptr<FileSystem> device;                                           // null: the real one
  ::stasis::testing::FaultyFileSystem quiet{device ? *device : real_file_system()};   // never fails
  ::stasis::testing::FaultyFileSystem faulty{device ? *device : real_file_system()};  // fails when told
  Store healthy = Store::open(quiet, root).value();
  Store store = Store::open(faulty, root).value();

 private:
  // Each is the beginning of the archive that arrives.
  void expect_kept_imports(std::set<std::string>& expected) const {
    if (!std::filesystem::exists(kept_imports_dir(healthy))) return;
    for (const auto& entry : std::filesystem::directory_iterator(kept_imports_dir(healthy))) {
      const Uuid stream = Uuid::parse(entry.path().filename().string()).value();
      const auto kept = find_kept_import(healthy, stream);
      ASSERT_TRUE(kept) << kept.error().message;
      Bytes bytes = read_whole_file(kept_archive_path(healthy, stream));
      ASSERT_LE(kept->bytes, std::min(bytes.size(), arriving.size()));
      bytes.resize(kept->bytes);
      EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(), arriving.begin())) << "another archive is kept";
      EXPECT_EQ(kept->checksum, checksum(bytes));
      for (const char* file : {"archive", "kept"}) expected.insert("imports/" + stream.text() + "/" + file);
    }
  }

  Bytes read(SnapshotId id, const Part& part) const {
    const auto map = healthy.read_map(id, part);
    EXPECT_TRUE(map) << map.error().message;
    if (!map) return {};
    const auto space = AddressSpace::open(real_file_system(), healthy.layers_dir(), *map);
    EXPECT_TRUE(space) << space.error().message;
    return space ? read_all(**space) : Bytes{};
  }
};

// A guest's disk with its private write layer: what the disk room does, as far as this room can see it.
class Disk {
 public:
  Disk(FaultyStore& store, uint64_t size)
      : content(size), map(BlockMap::zeros(size).value()), store_(store), file_(new_file(store)) {
    fresh_file();
  }
  Disk(FaultyStore& store, const BlockMap& base, Bytes bytes)
      : content(std::move(bytes)), map(base), store_(store), file_(new_file(store)) {
    fresh_file();
  }
  ~Disk() { std::filesystem::remove(file_); }
  Disk(const Disk&) = delete;
  Disk& operator=(const Disk&) = delete;

  void write(uint64_t first_block, const Bytes& bytes) {
    std::copy(bytes.begin(), bytes.end(), content.begin() + static_cast<ptrdiff_t>(first_block * kBlockSize));
    ASSERT_TRUE(store_.quiet.write_at(fd_.get(), first_block * kBlockSize, bytes));
    for (uint64_t i = 0; i < bytes.size() / kBlockSize; ++i) changed_[first_block + i] = false;
  }
  void discard(uint64_t first_block, uint64_t count) {
    const Range range = blocks(first_block, count);
    std::fill_n(content.begin() + static_cast<ptrdiff_t>(range.offset), range.length, std::byte{0});
    ASSERT_TRUE(store_.quiet.punch_hole(fd_.get(), range));
    for (uint64_t i = 0; i < count; ++i) changed_[first_block + i] = true;
  }

  // The next generation's map; the disk goes on above it.
  Result<BlockMap> seal(FileSystem& fs) {
    const LayerId id = LayerId::random();
    std::vector<Change> changes;
    std::vector<Range> data;
    for (const auto& [block, zero] : changed_) {
      changes.push_back({blocks(block, 1), zero});
      if (!zero) data.push_back(blocks(block, 1));
    }
    STASIS_ASSIGN(BlockMap next, map.merge(id, changes));
    if (!data.empty()) {
      STASIS_TRY(adopt_layer(fs, file_, store_.root / "layers", id, content.size(), data));
      fresh_file();
    }
    changed_.clear();
    map = next;
    return next;
  }

  Bytes content;
  BlockMap map;

 private:
  static Path new_file(const FaultyStore& store) {
    static std::atomic<int> made = 0;
    return store.dir.path() / ("write." + std::to_string(made++));
  }
  void fresh_file() {
    std::filesystem::remove(file_);
    fd_ = store_.quiet.create(file_).value();
    ASSERT_TRUE(store_.quiet.truncate(fd_.get(), content.size()));
  }

  FaultyStore& store_;
  Path file_;
  UniqueFd fd_;
  std::map<uint64_t, bool> changed_;  // block -> zeroed
};

// What a pause does: captures memory, seals the disk, publishes; abandons what it began if any of it fails.
// `memory_map` is the parent's, and the new one's afterwards.
inline Status snapshot_all(const Store& store, SnapshotId id, const Memory& memory, BlockMap& memory_map, Disk& disk,
                           const std::vector<Range>& candidates, const std::vector<Range>& removed = {}) {
  FileSystem& fs = store.fs();
  STASIS_ASSIGN(const StoreLock lock, store.lock_shared());
  const auto take = [&]() -> Result<BlockMap> {
    STASIS_ASSIGN(const auto base, AddressSpace::open(fs, store.layers_dir(), memory_map));
    STASIS_ASSIGN(const Path directory, store.begin(id));
    STASIS_ASSIGN(const UniqueFd state, fs.create(directory / "state"));
    STASIS_TRY(fs.write_at(state.get(), 0, block_of(0x5a)));
    STASIS_ASSIGN(const CaptureResult captured,
                  capture(fs, store.layers_dir(), {memory.source(), candidates, removed}, *base));
    STASIS_ASSIGN(const BlockMap disk_map, disk.seal(fs));
    Manifest manifest;
    manifest.id = id;
    manifest.machine = {1, static_cast<uint32_t>(std::max<uint64_t>(memory_map.metadata().size >> 20, 1))};
    manifest.vmm = "qemu";
    STASIS_ASSIGN(manifest.vm_state, store.describe_part(id, "state"));
    STASIS_ASSIGN(manifest.memory_map, store.write_map(id, "memory.map", captured.map));
    STASIS_ASSIGN(manifest.disk_map, store.write_map(id, "disk.map", disk_map));
    STASIS_TRY(store.publish(manifest));
    return captured.map;
  };
  auto taken = take();
  if (taken) {
    memory_map = *taken;
    return {};
  }
  store.abandon(id);
  return fail(std::move(taken).error());
}

}  // namespace stasis::snapshot::testing
