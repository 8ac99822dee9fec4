// Files of version 1 as they were written (testdata/v1): every later version must read them so. The encodings of
// version 1 are canonical: the same content gives the same bytes.
#include <gtest/gtest.h>

#include "snapshot/packed_layer.h"
#include "snapshot/testing/fixtures.h"
#include "snapshot/working_set.h"

namespace stasis::snapshot {
namespace {

using testing::Bytes;

const Path kFiles = STASIS_GOLDEN_FILES;
const LayerId kLayer{Uuid::parse("10000000-2000-4000-8000-300000000001").value()};
constexpr uint64_t kLayerSize = 3 * kBlockSize;

Bytes block_of_the_layer() {
  Bytes block(kBlockSize);
  for (size_t i = 0; i < block.size(); ++i) block[i] = static_cast<std::byte>(i * 7 + i / 256);
  return block;
}

const LayerId kPackedLayer{Uuid::parse("10000000-2000-4000-8000-300000000002").value()};
constexpr uint64_t kPackedSize = 2 * kFrameSize + kBlockSize;

Bytes content_of_the_packed_layer() {
  Bytes content(kPackedSize);
  const Bytes block = block_of_the_layer();
  std::copy(block.begin(), block.end(), content.begin() + kBlockSize);
  uint64_t state = 1;
  for (size_t i = 2 * kFrameSize; i < kPackedSize; ++i) {
    state = state * 6364136223846793005U + 1442695040888963407U;
    content[i] = static_cast<std::byte>(state >> 56);
  }
  return content;
}

TEST(GoldenTest, BlockMap) {
  const Bytes file = testing::read_whole_file(kFiles / "memory.map");
  const auto map = BlockMap::decode(file);
  ASSERT_TRUE(map) << map.error().message;
  EXPECT_EQ(map->metadata(), (BlockMap::Metadata{16 * kBlockSize, 3, Uuid{{0xaa}}, Uuid{{0xbb}}}));
  const LayerId one{Uuid{{1}}};
  const LayerId two{Uuid{{2}}};
  EXPECT_EQ(map->extents(), (std::vector<Extent>{{0, 4 * kBlockSize, one, 0},
                                                 {4 * kBlockSize, 8 * kBlockSize, LayerId{}, 0},
                                                 {12 * kBlockSize, 3 * kBlockSize, two, 12 * kBlockSize},
                                                 {15 * kBlockSize, kBlockSize, one, 15 * kBlockSize}}));
  EXPECT_EQ(map->encode().value(), file);
}

TEST(GoldenTest, LayerAndItsChecksums) {
  const auto layer = Layer::open(real_file_system(), kFiles / "layers", kLayer);
  ASSERT_TRUE(layer) << layer.error().message;
  EXPECT_EQ((*layer)->size(), kLayerSize);
  ASSERT_TRUE((*layer)->verify_all());
  Bytes all(kLayerSize);
  ASSERT_TRUE((*layer)->read(0, all));
  Bytes expected(kLayerSize);
  const Bytes block = block_of_the_layer();
  std::copy(block.begin(), block.end(), expected.begin() + kBlockSize);
  EXPECT_EQ(all, expected);

  const Bytes file = testing::read_whole_file(layer_sums_path(kFiles / "layers", kLayer));
  const auto sums = LayerSums::decode(file);
  ASSERT_TRUE(sums) << sums.error().message;
  EXPECT_EQ(sums->id, kLayer);
  EXPECT_EQ(sums->size, kLayerSize);
  EXPECT_EQ(sums->data_bytes, kBlockSize);
  EXPECT_EQ(sums->frames, std::vector<uint32_t>{0});
  EXPECT_EQ(sums->checksums, std::vector<uint64_t>{checksum(expected)});
  EXPECT_EQ(sums->encode(), file);
}

// Three frames: compressed, zeros, and a short one that zstd could not make smaller.
TEST(GoldenTest, PackedLayer) {
  const auto layer = Layer::open(real_file_system(), kFiles / "layers", kPackedLayer);
  ASSERT_TRUE(layer) << layer.error().message;
  EXPECT_FALSE((*layer)->can_be_mapped());
  ASSERT_TRUE((*layer)->verify_all());
  const Bytes expected = content_of_the_packed_layer();
  Bytes all(kPackedSize);
  ASSERT_TRUE((*layer)->read(0, all));
  EXPECT_EQ(all, expected);

  const Bytes file = testing::read_whole_file(layer_packed_path(kFiles / "layers", kPackedLayer));
  const auto header = PackedHeader::decode(file, file.size());
  ASSERT_TRUE(header) << header.error().message;
  EXPECT_EQ(header->id, kPackedLayer);
  EXPECT_EQ(header->size, kPackedSize);
  EXPECT_EQ(header->data_bytes, 3 * kBlockSize);
  const auto table = PackedTable::decode(*header, std::span(file).subspan(header->table_offset));
  ASSERT_TRUE(table) << table.error().message;
  EXPECT_EQ(table->sums.frames, (std::vector<uint32_t>{0, 1, 2}));
  EXPECT_EQ(table->sums.checksums[0], checksum(std::span(expected).first(kFrameSize)));
  EXPECT_LT(table->lengths[0], kBlockSize);
  EXPECT_EQ(table->lengths[1], 0U);
  EXPECT_EQ(table->lengths[2], kBlockSize);
  const Bytes tail = table->encode();
  EXPECT_TRUE(std::equal(tail.begin(), tail.end(), file.begin() + static_cast<ptrdiff_t>(header->table_offset)));
  const Bytes head = table->encode_header();
  EXPECT_TRUE(std::equal(head.begin(), head.end(), file.begin()));
}

TEST(GoldenTest, WorkingSet) {
  const Bytes file = testing::read_whole_file(kFiles / "working_set");
  const auto set = WorkingSet::decode(file);
  ASSERT_TRUE(set) << set.error().message;
  EXPECT_EQ(set->memory_size, 16 * kBlockSize);
  EXPECT_EQ(set->restores, 2U);
  EXPECT_EQ(set->entries,
            (std::vector<WorkingSetEntry>{
                {testing::blocks(7, 2), 0}, {testing::blocks(15, 1), 1500}, {testing::blocks(0, 3), 4'000'000'000}}));
  EXPECT_EQ(set->encode().value(), file);
}

TEST(GoldenTest, AWriterMakesTheSameLayer) {
  const stasis::testing::TempDir dir;
  const auto writer = LayerWriter::create(real_file_system(), dir.path(), kLayer, kLayerSize);
  ASSERT_TRUE(writer) << writer.error().message;
  ASSERT_TRUE((*writer)->write(kBlockSize, block_of_the_layer()));
  ASSERT_TRUE((*writer)->finish());
  for (const auto& path_of : {layer_data_path, layer_sums_path}) {
    EXPECT_EQ(testing::read_whole_file(path_of(dir.path(), kLayer)),
              testing::read_whole_file(path_of(kFiles / "layers", kLayer)));
  }
}

TEST(GoldenTest, Manifest) {
  const Bytes file = testing::read_whole_file(kFiles / "manifest");
  const auto manifest = Manifest::decode(file);
  ASSERT_TRUE(manifest) << manifest.error().message;
  Manifest expected;
  expected.id = {Uuid::parse("00112233-4455-4677-8899-aabbccddeeff").value()};
  expected.parent = {Uuid::parse("ffeeddcc-bbaa-4988-8766-554433221100").value()};
  expected.created_unix_ms = 1'795'000'000'123;
  expected.machine = {2, 512};
  expected.vmm = "qemu";
  expected.vmm_version = "7.2.22";
  expected.kernel = "6.1.0-40-cloud-amd64";
  expected.cpu_model = "host";
  expected.vm_state = Part{"state", 250'000, 0x0123456789abcdef};
  expected.memory_map = Part{"memory.map", 184, ~uint64_t{0}};
  expected.disk_map = Part{"disk.map", 120, 0};
  expected.memory = {3, 4096, 8192, 1 << 20};
  expected.disk = {2, 0, 4096, 4096};
  EXPECT_EQ(*manifest, expected);
  EXPECT_EQ(manifest->encode(), file);
}

}  // namespace
}  // namespace stasis::snapshot
