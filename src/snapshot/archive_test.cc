// Archives: there and back bit by bit, whatever is torn, flipped or put together is refused and leaves nothing.
#include "snapshot/archive.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zstd.h>

#include "base/poll.h"
#include "snapshot/archive_records.h"
#include "snapshot/compact.h"
#include "snapshot/testing/faulty_store.h"

namespace stasis::snapshot {
namespace {

using testing::blocks;
using testing::Bytes;
using testing::Disk;
using testing::FaultyStore;
using ::testing::HasSubstr;
using testing::Memory;
using testing::pick;
using testing::Random;
using testing::random_bytes;

constexpr uint64_t kMemorySize = 2 << 20;  // two windows
constexpr uint64_t kDiskSize = 300 * kBlockSize;

ArchiveSource source_of(const Bytes& bytes, size_t piece = 1'000) {
  auto position = std::make_shared<size_t>(0);
  return [&bytes, piece, position](std::span<std::byte> out) -> Result<size_t> {
    const size_t n = std::min({piece, out.size(), bytes.size() - *position});
    std::copy_n(bytes.begin() + static_cast<ptrdiff_t>(*position), n, out.begin());
    *position += n;
    return n;
  };
}

class ArchiveTest : public ::testing::Test {
 protected:
  // A chain of generations; the last one's id. Its machine has the memory that its map has.
  SnapshotId make_snapshot(int generations = 3) {
    Random random(7);
    SnapshotId id;
    for (int i = 0; i < generations; ++i) {
      memory_.write(pick(random, 0, 400) * kBlockSize, random_bytes(random, 100 * kBlockSize));
      memory_.zero(blocks(pick(random, 0, 500), 10));
      disk_.write(pick(random, 0, 200), random_bytes(random, 50 * kBlockSize));
      disk_.discard(pick(random, 0, 290), 10);
      id = SnapshotId::random();
      EXPECT_TRUE(testing::snapshot_all(from_.healthy, id, memory_, memory_map_, disk_, {memory_.whole()}));
    }
    const StoreLock lock = from_.healthy.lock_snapshot(id).value();
    Manifest manifest = from_.healthy.load(id).value();
    manifest.machine = {1, kMemorySize >> 20};
    manifest.vmm = "qemu";
    EXPECT_TRUE(from_.healthy.replace(manifest));
    known_[id] = {memory_.content, disk_.content};
    return id;
  }

  Result<Bytes> export_bytes(SnapshotId id, uint64_t from = 0) {
    Bytes bytes;
    ExportOptions options;
    options.note = "a token";
    options.from = from;
    STASIS_TRY(export_snapshot(from_.healthy, id, options, [&](std::span<const std::byte> piece) -> Status {
      bytes.insert(bytes.end(), piece.begin(), piece.end());
      return {};
    }));
    return bytes;
  }

  static Result<Manifest> import_bytes(const Store& store, const Bytes& bytes, SnapshotId id = SnapshotId::random(),
                                       std::string* note = nullptr) {
    ImportOptions options;
    options.id = id;
    options.on_note = [&](const std::string& text) -> Status {
      if (note != nullptr) *note = text;
      return {};
    };
    return import_snapshot(store, options, source_of(bytes));
  }

  // Refused with this code, and nothing of it is left, not even for a collection.
  void expect_refused(const Bytes& bytes, Code code) {
    const auto manifest = import_bytes(to_.healthy, bytes);
    ASSERT_FALSE(manifest);
    EXPECT_EQ(manifest.error().code, code) << manifest.error().message;
    EXPECT_THAT(to_.files(), ::testing::IsEmpty());
  }

  FaultyStore from_;
  FaultyStore to_;
  Memory memory_{kMemorySize};
  BlockMap memory_map_ = BlockMap::zeros(kMemorySize).value();
  Disk disk_{from_, kDiskSize};
  std::map<SnapshotId, FaultyStore::Content> known_;
};

TEST_F(ArchiveTest, ThereAndBackOnAnEmptyStore) {
  const SnapshotId id = make_snapshot();
  const Manifest original = from_.healthy.load(id).value();
  const BlockMap map = from_.healthy.read_map(id, *original.memory_map).value();
  const auto bytes = export_bytes(id);
  ASSERT_TRUE(bytes) << bytes.error().message;
  const std::vector<SnapshotId> ids = from_.healthy.list().value();
  for (const SnapshotId each : ids) ASSERT_TRUE(from_.healthy.remove(each));
  ASSERT_TRUE(from_.healthy.collect(std::vector<BlockMap>{}));

  const SnapshotId copy = SnapshotId::random();
  std::string note;
  const auto manifest = import_bytes(to_.healthy, *bytes, copy, &note);
  ASSERT_TRUE(manifest) << manifest.error().message;
  EXPECT_EQ(note, "a token");
  to_.expect_listed_snapshots_whole({{copy, known_.at(id)}});
  to_.expect_nothing_else();

  const Manifest found = to_.healthy.load(copy).value();
  EXPECT_EQ(found, *manifest);
  EXPECT_EQ(found.id, copy);
  EXPECT_EQ(found.machine, original.machine);
  EXPECT_EQ(found.created_unix_ms, original.created_unix_ms);
  const BlockMap flat = to_.healthy.read_map(copy, *found.memory_map).value();
  EXPECT_EQ(flat.metadata(), map.metadata());
  EXPECT_EQ(flat.layers().size(), 1U);
  EXPECT_EQ(live_bytes(flat), live_bytes(map));
  EXPECT_EQ(found.memory.stored_bytes, live_bytes(map));
}

TEST_F(ArchiveTest, ItStandsBesideTheOriginal) {
  const SnapshotId id = make_snapshot(1);
  const SnapshotId copy = SnapshotId::random();
  ASSERT_TRUE(import_bytes(from_.healthy, export_bytes(id).value(), copy));
  from_.expect_listed_snapshots_whole({{id, known_.at(id)}, {copy, known_.at(id)}});
  const auto again = import_bytes(from_.healthy, export_bytes(id).value(), copy);
  EXPECT_EQ(again.error().code, Code::kAlreadyExists);
}

TEST_F(ArchiveTest, TheSameBytesEachTimeFromAnyOffsetAndAfterACompaction) {
  const SnapshotId id = make_snapshot();
  const Bytes whole = export_bytes(id).value();
  for (const uint64_t from : {uint64_t{1}, uint64_t{71}, uint64_t{whole.size() / 2}, uint64_t{whole.size() - 1}}) {
    EXPECT_EQ(export_bytes(id, from).value(), Bytes(whole.begin() + static_cast<ptrdiff_t>(from), whole.end()));
  }
  EXPECT_TRUE(export_bytes(id, whole.size()).value().empty());
  EXPECT_EQ(export_bytes(id, whole.size() + 1).error().code, Code::kOutOfRange);
  ASSERT_EQ(compact(from_.healthy, id)->spaces, 2U);
  EXPECT_EQ(export_bytes(id).value(), whole);
}

TEST_F(ArchiveTest, ItIsAPlainZstdStream) {
  const Bytes whole = export_bytes(make_snapshot(1)).value();
  const std::unique_ptr<ZSTD_DCtx, size_t (*)(ZSTD_DCtx*)> zstd(ZSTD_createDCtx(), ZSTD_freeDCtx);
  Bytes plain(64 << 20);
  const size_t n = ZSTD_decompressDCtx(zstd.get(), plain.data(), plain.size(), whole.data(), whole.size());
  ASSERT_EQ(ZSTD_isError(n), 0U) << ZSTD_getErrorName(n);
  EXPECT_GT(n, 100 * kBlockSize);
}

TEST_F(ArchiveTest, CutOffAnywhereItIsRefused) {
  const Bytes whole = export_bytes(make_snapshot(1)).value();
  expect_refused({}, Code::kInvalidArgument);
  Random random(3);
  std::vector<size_t> lengths{1, 71, 72, 73, whole.size() - 1, whole.size() - 30};
  for (int i = 0; i < 40; ++i) lengths.push_back(pick(random, 1, whole.size() - 1));
  for (const size_t length : lengths) {
    SCOPED_TRACE("cut at " + std::to_string(length) + " of " + std::to_string(whole.size()));
    expect_refused(Bytes(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(length)), Code::kDataLoss);
  }
  Bytes longer = whole;
  longer.push_back(std::byte{0});
  expect_refused(longer, Code::kDataLoss);
}

TEST_F(ArchiveTest, EveryFlippedBitIsRefused) {
  const Bytes whole = export_bytes(make_snapshot(1)).value();
  Random random(4);
  for (int i = 0; i < 300 && !HasFailure(); ++i) {
    const uint64_t at = i < 144 ? static_cast<uint64_t>(i) : pick(random, 0, whole.size() - 1);
    SCOPED_TRACE("byte " + std::to_string(at));
    Bytes flipped = whole;
    flipped[at] ^= std::byte(1U << pick(random, 0, 7));
    const auto manifest = import_bytes(to_.healthy, flipped);
    // A bit of a zstd frame that changes nothing of what it decodes to may go unseen.
    if (manifest) {
      to_.expect_listed_snapshots_whole({{manifest->id, known_.begin()->second}});
      ASSERT_TRUE(to_.healthy.remove(manifest->id));
      ASSERT_TRUE(to_.healthy.collect(std::vector<BlockMap>{}));
    }
    EXPECT_THAT(to_.files(), ::testing::IsEmpty());
  }
}

// The records of an archive, so that a test can put others together: each has right checksums of its own.
struct OwnedRecord {
  Record record;
  Bytes payload;
};
std::vector<OwnedRecord> records_of(const Bytes& whole) {
  const ArchiveSource source = source_of(whole);
  RecordReader reader(source);
  std::vector<OwnedRecord> records;
  for (;;) {
    const Record record = reader.next().value();
    if (record.kind == RecordKind::kEnd) return records;
    records.push_back({record, Bytes(record.payload.begin(), record.payload.end())});
  }
}
Bytes archive_of(const std::vector<OwnedRecord>& records) {
  RecordWriter writer;
  Bytes bytes;
  const auto append = [&](std::span<const std::byte> piece) { bytes.insert(bytes.end(), piece.begin(), piece.end()); };
  for (const OwnedRecord& one : records) {
    Record record = one.record;
    record.payload = one.payload;
    append(writer.encode(record).value());
  }
  append(writer.encode_end().value());
  return bytes;
}

TEST_F(ArchiveTest, RightRecordsInAWrongOrderAreRefused) {
  const auto records = records_of(export_bytes(make_snapshot(1)).value());
  ASSERT_EQ(import_bytes(to_.healthy, archive_of(records)).has_value(), true);
  ASSERT_TRUE(to_.healthy.remove(to_.healthy.list()->at(0)));
  ASSERT_TRUE(to_.healthy.collect(std::vector<BlockMap>{}));
  for (size_t i = 0; i < records.size(); ++i) {
    SCOPED_TRACE("record " + std::to_string(i));
    auto twice = records;
    twice.insert(twice.begin() + static_cast<ptrdiff_t>(i), records[i]);
    expect_refused(archive_of(twice), Code::kDataLoss);
    if (records[i].record.kind == RecordKind::kWindow) continue;  // one less is another snapshot, and a whole one
    auto without = records;
    without.erase(without.begin() + static_cast<ptrdiff_t>(i));
    expect_refused(archive_of(without), Code::kDataLoss);
  }
}

TEST_F(ArchiveTest, HostileRecordsAreRefused) {
  const auto records = records_of(export_bytes(make_snapshot(1)).value());
  const auto with = [&](RecordKind kind, const std::function<void(OwnedRecord&)>& change) {
    auto changed = records;
    const auto at = std::find_if(changed.begin(), changed.end(), [&](const auto& r) { return r.record.kind == kind; });
    change(*at);
    return archive_of(changed);
  };
  const uint64_t huge = uint64_t{1} << 50;
  expect_refused(with(RecordKind::kWindow, [](auto& r) { r.record.offset = kMemorySize; }), Code::kDataLoss);
  expect_refused(with(RecordKind::kWindow, [](auto& r) { r.record.offset = ~uint64_t{0} << 20; }), Code::kDataLoss);
  expect_refused(with(RecordKind::kWindow, [](auto& r) { r.record.offset += 4096; }), Code::kDataLoss);
  expect_refused(with(RecordKind::kWindow, [](auto& r) { r.record.space = 2; }), Code::kDataLoss);
  expect_refused(with(RecordKind::kWindow, [](auto& r) { r.payload[0] ^= std::byte{1}; }), Code::kDataLoss);
  expect_refused(with(RecordKind::kWindow, [](auto& r) { r.payload.resize(7); }), Code::kDataLoss);
  expect_refused(with(RecordKind::kSpace, [&](auto& r) { std::memcpy(r.payload.data(), &huge, 8); }),
                 Code::kInvalidArgument);
  expect_refused(with(RecordKind::kSpace, [](auto& r) { r.payload[2] ^= std::byte{0x10}; }), Code::kDataLoss);
  expect_refused(with(RecordKind::kSpace, [](auto& r) { std::fill_n(r.payload.begin() + 16, 16, std::byte{0}); }),
                 Code::kDataLoss);
  expect_refused(with(RecordKind::kNote, [](auto& r) { r.payload.resize(kMaxArchiveNote + 1); }), Code::kDataLoss);
  expect_refused(with(RecordKind::kState, [](auto& r) { r.payload[5] ^= std::byte{1}; }), Code::kDataLoss);
  expect_refused(with(RecordKind::kManifest, [](auto& r) { r.payload[40] ^= std::byte{1}; }), Code::kDataLoss);
}

// Written by the first version that wrote archives; every later one reads it.
TEST_F(ArchiveTest, TheGoldenFileOfVersion1) {
  const Bytes golden = testing::read_whole_file(STASIS_ARCHIVE_CORPUS "/version1");
  std::string note;
  const SnapshotId id = SnapshotId::random();
  const auto manifest = import_bytes(to_.healthy, golden, id, &note);
  ASSERT_TRUE(manifest) << manifest.error().message;
  EXPECT_EQ(note, R"({"access_token":"secret","name":"golden"})");
  EXPECT_EQ(manifest->machine, (MachineShape{1, 1}));
  EXPECT_EQ(manifest->vmm_version, "7.2.0");
  EXPECT_EQ(manifest->created_unix_ms, 1764037200000);
  FaultyStore::Content content{Bytes(1 << 20), Bytes(300 * kBlockSize)};
  for (Bytes* bytes : {&content.memory, &content.disk}) {
    for (size_t i = 0; i < 2 * kBlockSize; ++i) (*bytes)[3 * kBlockSize + i] = std::byte(i / 64 + 1);
  }
  to_.expect_listed_snapshots_whole({{id, content}});
  const BlockMap map = to_.healthy.read_map(id, *manifest->memory_map).value();
  EXPECT_EQ(map.metadata().generation, 4U);
  EXPECT_EQ(map.metadata().id.text(), "66666666-7777-4888-8999-aaaaaaaaaaaa");
}

TEST_F(ArchiveTest, AnotherVersionIsRefusedAsSuch) {
  Bytes whole = export_bytes(make_snapshot(1)).value();
  whole[16] = std::byte{2};
  const auto manifest = import_bytes(to_.healthy, whole);
  ASSERT_FALSE(manifest);
  EXPECT_EQ(manifest.error().code, Code::kInvalidArgument);
  EXPECT_THAT(manifest.error().message, HasSubstr("version 2"));
}

TEST_F(ArchiveTest, DamageIsToldAndAnImageIsNotExported) {
  const SnapshotId id = make_snapshot(1);
  testing::damage_file(layer_data_path(from_.root / "layers", memory_map_.layers()[0]),
                       memory_map_.find(0).is_zero() ? memory_map_.find(0).end() + 5 : 5);
  const auto bytes = export_bytes(id);
  ASSERT_FALSE(bytes);
  EXPECT_EQ(bytes.error().code, Code::kDataLoss);
  EXPECT_EQ(export_bytes(SnapshotId::random()).error().code, Code::kNotFound);

  const ImageFiles files{from_.dir.path() / "vmlinux", from_.dir.path() / "initrd", from_.dir.path() / "disk", "6.1"};
  for (const Path& path : {files.vmlinux, files.initrd, files.root_disk}) {
    testing::write_whole_file(path, testing::block_of(3));
  }
  const SnapshotId image = import_image(from_.healthy, files).value().id;
  EXPECT_EQ(export_bytes(image).error().code, Code::kFailedPrecondition);
}

TEST_F(ArchiveTest, ACollectionBesideAnImportLeavesItAlone) {
  const Bytes whole = export_bytes(make_snapshot(2)).value();
  int collections = 0;
  size_t position = 0;
  const ArchiveSource source = [&](std::span<std::byte> out) -> Result<size_t> {
    if (to_.healthy.collect(std::vector<BlockMap>{})) ++collections;
    const size_t n = std::min(out.size(), whole.size() - position);
    std::copy_n(whole.begin() + static_cast<ptrdiff_t>(position), n, out.begin());
    position += n;
    return n;
  };
  ImportOptions options;
  options.id = SnapshotId::random();
  const auto manifest = import_snapshot(to_.healthy, options, source);
  ASSERT_TRUE(manifest) << manifest.error().message;
  EXPECT_GT(collections, 10);
  to_.expect_listed_snapshots_whole({{options.id, known_.begin()->second}});
}

TEST_F(ArchiveTest, EveryFailingCallLeavesNothingOrAWholeSnapshot) {
  const SnapshotId id = make_snapshot(1);
  const Bytes whole = export_bytes(id).value();
  for (const auto mode :
       {::stasis::testing::FaultyFileSystem::Mode::kOnce, ::stasis::testing::FaultyFileSystem::Mode::kFromThenOn}) {
    bool fired = true;
    for (uint64_t n = 1; fired && !HasFailure(); ++n) {
      SCOPED_TRACE("with call " + std::to_string(n) + " failing");
      const SnapshotId copy = SnapshotId::random();
      to_.faulty.fail_at(n, n % 2 == 0 ? EIO : ENOSPC, mode);
      const auto manifest = import_bytes(to_.store, whole, copy);
      fired = to_.faulty.fired();
      to_.faulty.heal();
      if (!manifest) {
        EXPECT_THAT(manifest.error().message, HasSubstr("injected"));
      }
      to_.expect_listed_snapshots_whole({{copy, known_.at(id)}});
      const auto collected = to_.healthy.collect(std::vector<BlockMap>{});
      ASSERT_TRUE(collected) << collected.error().message;
      to_.expect_listed_snapshots_whole({{copy, known_.at(id)}});
      to_.expect_nothing_else();
      (void)to_.healthy.remove(copy);
      ASSERT_TRUE(to_.healthy.collect(std::vector<BlockMap>{}));
    }
  }
}

}  // namespace
}  // namespace stasis::snapshot
