#include "snapshot/store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "snapshot/testing/published.h"

namespace stasis::snapshot {
namespace {

using testing::block_of;
using testing::blocks;
using testing::Bytes;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;

using StoreRoomTest = testing::PublishTest;

TEST_F(StoreRoomTest, APublishedSnapshotIsListedLoadedAndRead) {
  const Manifest manifest = publish_first();
  EXPECT_THAT(store_.list().value(), ElementsAre(manifest.id));
  EXPECT_EQ(store_.load(manifest.id).value(), manifest);
  EXPECT_EQ(testing::read_all(*open(map_of(manifest))), memory_.content);
  EXPECT_EQ(store_.read_part(manifest.id, *manifest.vm_state).value(), Bytes(1000, std::byte{1}));
  const Store again = Store::open(fs_, store_.root()).value();
  EXPECT_THAT(again.list().value(), ElementsAre(manifest.id));
}

TEST_F(StoreRoomTest, ASnapshotWithoutAManifestDoesNotExist) {
  const SnapshotId id = SnapshotId::random();
  ASSERT_TRUE(store_.begin(id));
  EXPECT_THAT(store_.list().value(), IsEmpty());
  EXPECT_EQ(store_.load(id).error().code, Code::kNotFound);
  EXPECT_EQ(store_.remove(id).error().code, Code::kNotFound);
  store_.abandon(id);
  EXPECT_THAT(fs_.list(store_.snapshots_dir()).value(), IsEmpty());
}

TEST_F(StoreRoomTest, NothingIsOverwritten) {
  const Manifest manifest = publish_first();
  EXPECT_EQ(store_.begin(manifest.id).error().code, Code::kAlreadyExists);
  EXPECT_EQ(store_.publish(manifest).error().code, Code::kAlreadyExists);
  EXPECT_EQ(store_.write_map(manifest.id, "memory.map", map_of(manifest)).error().code, Code::kAlreadyExists);
  EXPECT_EQ(store_.load(manifest.id).value(), manifest);
}

TEST_F(StoreRoomTest, WhatCouldNotBeReadIsNotPublished) {
  Manifest manifest;
  manifest.id = SnapshotId::random();
  ASSERT_TRUE(store_.begin(manifest.id));
  manifest.kernel = std::string(300, 'k');
  EXPECT_EQ(store_.publish(manifest).error().code, Code::kInvalidArgument);
  manifest.kernel = "\xff\xfe";
  EXPECT_EQ(store_.publish(manifest).error().code, Code::kInvalidArgument);
  EXPECT_THAT(store_.list().value(), IsEmpty());
  EXPECT_EQ(store_.describe_part(manifest.id, "../../lock").error().code, Code::kInvalidArgument);
  EXPECT_EQ(store_.write_map(manifest.id, "manifest", BlockMap::zeros(4096).value()).error().code,
            Code::kInvalidArgument);
}

TEST_F(StoreRoomTest, DamagedPartsNameFileAndSnapshot) {
  const Manifest manifest = publish_first();
  const Path directory = store_.snapshot_dir(manifest.id);
  testing::damage_file(directory / "state", 999);
  const auto part = store_.read_part(manifest.id, *manifest.vm_state);
  EXPECT_EQ(part.error().code, Code::kDataLoss);
  EXPECT_THAT(part.error().message, HasSubstr("snapshot " + manifest.id.text() + ", state"));
  std::filesystem::resize_file(directory / "state", 10);
  EXPECT_THAT(store_.read_part(manifest.id, *manifest.vm_state).error().message, HasSubstr("10 bytes instead of 1000"));
  std::filesystem::remove(directory / "state");
  EXPECT_EQ(store_.read_part(manifest.id, *manifest.vm_state).error().code, Code::kDataLoss);
}

// Also where the damage makes a map of another kind, or none: what is told is that the file is not what was written.
TEST_F(StoreRoomTest, ADamagedMapNamesFileAndSnapshotWhereverItIsDamaged) {
  const Manifest manifest = publish_first();
  const Path file = store_.snapshot_dir(manifest.id) / manifest.memory_map->file;
  for (const uint64_t at : {uint64_t{0}, uint64_t{8}, uint64_t{40}, uint64_t{76}, manifest.memory_map->size - 1}) {
    testing::damage_file(file, at);
    const auto map = store_.read_map(manifest.id, *manifest.memory_map);
    ASSERT_FALSE(map) << "byte " << at;
    EXPECT_EQ(map.error().code, Code::kDataLoss);
    EXPECT_THAT(map.error().message, HasSubstr("snapshot " + manifest.id.text() + ", memory.map is damaged"));
    testing::damage_file(file, at);  // back
  }
  EXPECT_TRUE(store_.read_map(manifest.id, *manifest.memory_map));
  std::filesystem::resize_file(file, 10);
  EXPECT_THAT(store_.read_map(manifest.id, *manifest.memory_map).error().message, HasSubstr("10 bytes instead of"));
}

TEST_F(StoreRoomTest, TheHeadOfAMapIsReadAlone) {
  const Manifest manifest = publish_first();
  const Part part = *manifest.memory_map;
  const BlockMap map = store_.read_map(manifest.id, part).value();
  const Path file = store_.snapshot_dir(manifest.id) / part.file;
  testing::damage_file(file, part.size - 1);
  EXPECT_EQ(store_.read_map_metadata(manifest.id, part).value(), map.metadata()) << "its extents are not looked at";
  testing::damage_file(file, 24);
  const auto damaged = store_.read_map_metadata(manifest.id, part);
  ASSERT_FALSE(damaged);
  EXPECT_EQ(damaged.error().code, Code::kDataLoss);
  EXPECT_THAT(damaged.error().message, HasSubstr("memory.map"));
  ASSERT_TRUE(store_.remove(manifest.id));
  EXPECT_EQ(store_.read_map_metadata(manifest.id, part).error().code, Code::kNotFound);
}

// Whoever has its manifest already must not take it for damaged.
TEST_F(StoreRoomTest, ASnapshotThatIsRemovedWhileItIsReadIsNotFound) {
  const Manifest manifest = publish_first();
  ASSERT_TRUE(store_.remove(manifest.id));
  EXPECT_EQ(store_.read_part(manifest.id, *manifest.vm_state).error().code, Code::kNotFound);
  EXPECT_EQ(store_.read_map(manifest.id, *manifest.memory_map).error().code, Code::kNotFound);
}

TEST_F(StoreRoomTest, ADamagedManifestStaysListedAndIsDataLoss) {
  const Manifest manifest = publish_first();
  testing::damage_file(store_.snapshot_dir(manifest.id) / "manifest", 60);
  EXPECT_THAT(store_.list().value(), ElementsAre(manifest.id));
  const auto loaded = store_.load(manifest.id);
  EXPECT_EQ(loaded.error().code, Code::kDataLoss);
  EXPECT_THAT(loaded.error().message, HasSubstr(manifest.id.text()));
  EXPECT_EQ(store_.collect(std::vector<BlockMap>{}).error().code, Code::kDataLoss);
  EXPECT_THAT(layer_files(), SizeIs(2)) << "its layers are unknown, so none is removed";
  ASSERT_TRUE(store_.remove(manifest.id)) << "it can still be removed";
  EXPECT_EQ(collect().layers_removed, 1U);
}

TEST_F(StoreRoomTest, AManifestInAnothersPlaceIsDataLoss) {
  const Manifest one = publish_first();
  const Manifest two = publish_first();
  std::filesystem::copy_file(store_.snapshot_dir(one.id) / "manifest", store_.snapshot_dir(two.id) / "manifest",
                             std::filesystem::copy_options::overwrite_existing);
  EXPECT_EQ(store_.load(two.id).error().code, Code::kDataLoss);
}

TEST_F(StoreRoomTest, LayersLiveAsLongAsAnySnapshotNeedsThem) {
  const Manifest first = publish_first();
  memory_.write(0, block_of(1));
  const Manifest second = publish(map_of(first));
  const Bytes content = memory_.content;
  ASSERT_TRUE(store_.remove(first.id));
  EXPECT_EQ(store_.load(first.id).error().code, Code::kNotFound);
  EXPECT_EQ(collect().layers_removed, 0U);
  EXPECT_EQ(testing::read_all(*open(map_of(second))), content);
  ASSERT_TRUE(store_.remove(second.id));
  const CollectStats stats = collect();
  EXPECT_EQ(stats.layers_removed, 2U);
  EXPECT_GE(stats.bytes_freed, 1U << 20);
  EXPECT_THAT(layer_files(), IsEmpty());
  EXPECT_EQ(collect().layers_removed, 0U);
}

TEST_F(StoreRoomTest, LayersOfRootsStay) {
  const Manifest manifest = publish_first();
  const BlockMap map = map_of(manifest);
  ASSERT_TRUE(store_.remove(manifest.id));
  EXPECT_EQ(collect({map}).layers_removed, 0U);
  EXPECT_EQ(testing::read_all(*open(map)), memory_.content);
  EXPECT_EQ(collect().layers_removed, 1U);
}

TEST_F(StoreRoomTest, RootsThatCannotBeHadStopTheCollection) {
  const Manifest manifest = publish_first();
  ASSERT_TRUE(store_.remove(manifest.id));
  const auto stats =
      store_.collect_with([]() -> Result<std::vector<BlockMap>> { return fail(Code::kInternal, "no roots"); });
  EXPECT_EQ(stats.error().code, Code::kInternal);
  EXPECT_THAT(layer_files(), SizeIs(2));
}

TEST_F(StoreRoomTest, RubbishIsSweptAndWhatIsNotOursStays) {
  const Manifest manifest = publish_first();
  const SnapshotId begun = SnapshotId::random();
  testing::write_whole_file(*store_.begin(begun) / "state", Bytes(10));
  const Path directory = store_.snapshot_dir(manifest.id);
  testing::write_whole_file(directory / "manifest.tmp", Bytes(10));
  testing::write_whole_file(store_.layers_dir() / (LayerId::random().text() + ".raw.tmp"), Bytes(10));
  testing::write_whole_file(store_.layers_dir() / (LayerId::random().text() + ".sums"), Bytes(10));
  testing::write_whole_file(store_.layers_dir() / "README", Bytes(10));
  std::filesystem::create_directory(store_.snapshots_dir() / "lost+found");
  const CollectStats stats = collect();
  EXPECT_EQ(stats.snapshots_swept, 1U);
  EXPECT_EQ(stats.files_swept, 2U);
  EXPECT_EQ(stats.layers_removed, 0U);
  EXPECT_THAT(layer_files(), SizeIs(3));
  EXPECT_THAT(fs_.list(store_.snapshots_dir()).value(), UnorderedElementsAre(manifest.id.text(), "lost+found"));
  EXPECT_THAT(fs_.list(directory).value(), ElementsAre("manifest", "memory.map", "state"));
}

TEST_F(StoreRoomTest, ACollectionAndAWriterExcludeEachOther) {
  {
    const auto one = store_.lock_shared();
    const auto another = store_.lock_shared();
    ASSERT_TRUE(one && another);
    EXPECT_EQ(store_.collect(std::vector<BlockMap>{}).error().code, Code::kAborted);
  }
  EXPECT_TRUE(store_.collect(std::vector<BlockMap>{}));
}

class ImportTest : public StoreRoomTest {
 protected:
  ImportTest() {
    testing::write_whole_file(files_.vmlinux, block_of(1));
    testing::write_whole_file(files_.initrd, Bytes(100, std::byte{2}));
    files_.kernel = "6.1.0";
    const auto fd = fs_.create(files_.root_disk);
    EXPECT_TRUE(fs_.truncate(fd->get(), kDiskSize));
    for (const Range range : {blocks(0, 3), blocks(1000, 300)}) {
      EXPECT_TRUE(fs_.write_at(fd->get(), range.offset, Bytes(range.length, std::byte{5})));
    }
    EXPECT_TRUE(fs_.write_at(fd->get(), 2000 * kBlockSize, Bytes(10 * kBlockSize)));  // allocated zeros
  }
  static constexpr uint64_t kDiskSize = 64 << 20;
  ImageFiles files_{dir_.path() / "vmlinux", dir_.path() / "initrd", dir_.path() / "disk", ""};
};

TEST_F(ImportTest, AnImageHoldsTheDataOfTheDiskOnly) {
  const auto manifest = import_image(store_, files_);
  ASSERT_TRUE(manifest) << manifest.error().message;
  EXPECT_EQ(store_.load(manifest->id).value(), *manifest);
  EXPECT_EQ(manifest->kind, SnapshotKind::kImage);
  EXPECT_EQ(manifest->kernel, "6.1.0");
  const BlockMap map = store_.read_map(manifest->id, *manifest->disk_map).value();
  EXPECT_EQ(map.metadata().generation, 0U);
  EXPECT_TRUE(map.metadata().base_id.is_nil());
  EXPECT_EQ(map.extent_count(), 4U);
  EXPECT_EQ(testing::read_all(*open(map)), testing::read_whole_file(files_.root_disk));
  EXPECT_EQ(manifest->disk.stored_bytes, 303 * kBlockSize);
  EXPECT_LE(fs_.info(layer_data_path(store_.layers_dir(), map.layers()[0]))->stored_bytes, 310 * kBlockSize);
  EXPECT_EQ(store_.read_part(manifest->id, *manifest->initrd).value(), Bytes(100, std::byte{2}));
  EXPECT_EQ(store_.read_part(manifest->id, *manifest->vmlinux).value(), block_of(1));
}

TEST_F(ImportTest, ADiskOfZerosNeedsNoLayer) {
  std::filesystem::resize_file(files_.root_disk, 0);
  std::filesystem::resize_file(files_.root_disk, kDiskSize);
  const auto manifest = import_image(store_, files_);
  ASSERT_TRUE(manifest) << manifest.error().message;
  EXPECT_THAT(layer_files(), IsEmpty());
  EXPECT_EQ(store_.read_map(manifest->id, *manifest->disk_map)->size(), kDiskSize);
}

TEST_F(ImportTest, FilesThatAreWrongLeaveNothingBehind) {
  std::filesystem::resize_file(files_.root_disk, kDiskSize + 1);
  EXPECT_EQ(import_image(store_, files_).error().code, Code::kInvalidArgument);
  std::filesystem::resize_file(files_.root_disk, 0);
  EXPECT_EQ(import_image(store_, files_).error().code, Code::kInvalidArgument);
  std::filesystem::remove(files_.root_disk);
  EXPECT_EQ(import_image(store_, files_).error().code, Code::kNotFound);
  testing::write_whole_file(files_.root_disk, block_of(9));
  testing::write_whole_file(files_.initrd, {});
  EXPECT_EQ(import_image(store_, files_).error().code, Code::kInvalidArgument);
  EXPECT_THAT(layer_files(), IsEmpty());
  EXPECT_THAT(fs_.list(store_.snapshots_dir()).value(), IsEmpty());
}

}  // namespace
}  // namespace stasis::snapshot
