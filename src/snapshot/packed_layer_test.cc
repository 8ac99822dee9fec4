#include "snapshot/packed_layer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <zstd.h>

#include <thread>

#include "base/testing/faulty_file_system.h"
#include "snapshot/testing/hostile.h"
#include "snapshot/testing/reseal.h"
#include "snapshot/verify.h"

namespace stasis::snapshot {
namespace {

using stasis::testing::FaultyFileSystem;
using testing::blocks;
using testing::Bytes;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::Random;
using testing::random_bytes;

// Five frames: compressible, incompressible, zeros, nothing, and a short one.
constexpr uint64_t kSize = 4 * kFrameSize + 3 * kBlockSize;

class PackedLayerTest : public testing::StoreTest {
 protected:
  Path path() const { return layer_packed_path(store_.layers_dir(), id_); }

  void put(PackedLayerWriter& writer, uint64_t offset, const Bytes& bytes) {
    std::copy(bytes.begin(), bytes.end(), content_.begin() + static_cast<ptrdiff_t>(offset));
    const Status written = writer.write(offset, bytes);
    ASSERT_TRUE(written) << written.error().message;
  }
  void write_layer() {
    const auto writer = PackedLayerWriter::create(fs_, store_.layers_dir(), id_, kSize);
    ASSERT_TRUE(writer) << writer.error().message;
    Random random(7);
    put(**writer, kBlockSize, Bytes(2 * kBlockSize, std::byte{3}));
    put(**writer, 5 * kBlockSize, Bytes(kBlockSize, std::byte{4}));
    put(**writer, kFrameSize, random_bytes(random, kFrameSize));
    put(**writer, 2 * kFrameSize + kBlockSize, Bytes(2 * kBlockSize));
    put(**writer, 4 * kFrameSize + kBlockSize, Bytes(2 * kBlockSize, std::byte{5}));
    const auto info = (*writer)->finish();
    ASSERT_TRUE(info) << info.error().message;
    EXPECT_EQ(info->data_bytes, 23 * kBlockSize);
  }
  Result<std::shared_ptr<Layer>> open() { return Layer::open(fs_, store_.layers_dir(), id_); }
  PackedTable table() const {
    const Bytes file = testing::read_whole_file(path());
    const auto header = PackedHeader::decode(file, file.size()).value();
    return PackedTable::decode(header, std::span(file).subspan(header.table_offset)).value();
  }
  // Writes the file anew as `change` makes it, with the right checksums of header and table, and opens it.
  std::string refusal(const std::function<void(Bytes&)>& change) {
    Bytes file = whole_;
    change(file);
    testing::Resealer(file).packed_layer();
    std::filesystem::remove(path());
    testing::write_whole_file(path(), file);
    const auto layer = open();
    if (layer) return "it was taken";
    EXPECT_EQ(layer.error().code, Code::kDataLoss);
    EXPECT_THAT(layer.error().message, HasSubstr(path().string()));
    return layer.error().message;
  }
  template <typename T>
  static std::function<void(Bytes&)> set(size_t offset, T value) {
    return [=](Bytes& file) { std::memcpy(file.data() + offset, &value, sizeof(value)); };
  }

  FaultyFileSystem fs_{real_file_system()};
  const LayerId id_ = LayerId::random();
  Bytes content_ = Bytes(kSize);
  Bytes whole_;
};

TEST_F(PackedLayerTest, WhatIsWrittenIsReadAsFromARawLayer) {
  write_layer();
  const auto raw_id = LayerId::random();
  const auto raw = LayerWriter::create(fs_, store_.layers_dir(), raw_id, kSize);
  for (const Range range : {blocks(1, 2), blocks(5, 1), blocks(16, 16), blocks(33, 2), blocks(65, 2)}) {
    ASSERT_TRUE((*raw)->write(range.offset, std::span(content_).subspan(range.offset, range.length)));
  }
  ASSERT_TRUE((*raw)->finish());
  const auto same = Layer::open(fs_, store_.layers_dir(), raw_id).value();
  const auto layer = open().value();
  EXPECT_TRUE(same->can_be_mapped());
  EXPECT_FALSE(layer->can_be_mapped());
  EXPECT_EQ(layer->size(), kSize);
  EXPECT_EQ(layer->info().data_bytes, same->info().data_bytes);
  EXPECT_THAT(layer->frames(), ElementsAre(0, 1, 2, 4));
  for (const Range range : {blocks(0, 1), blocks(1, 1), blocks(5, 20), blocks(0, 48), blocks(64, 3), blocks(66, 1)}) {
    Bytes packed(range.length, std::byte{1});
    Bytes plain(range.length, std::byte{2});
    ASSERT_TRUE(layer->read(range.offset, packed));
    ASSERT_TRUE(same->read(range.offset, plain));
    EXPECT_EQ(packed, plain);
    EXPECT_THAT(layer->view(range.offset, range.length), IsEmpty());
  }
  EXPECT_EQ(layer->read(3 * kFrameSize, std::span(content_).first(kBlockSize)).error().code, Code::kDataLoss);
  struct stat st {};
  EXPECT_EQ(::stat(path().c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0444U);
}

TEST_F(PackedLayerTest, ZerosCostNothingAndWhatCannotBeCompressedIsStoredAsItIs) {
  write_layer();
  const PackedTable table = this->table();
  ASSERT_EQ(table.lengths.size(), 4U);
  EXPECT_LT(table.lengths[0], 1000U);
  EXPECT_EQ(table.lengths[1], kFrameSize);
  EXPECT_EQ(table.lengths[2], 0U);
  EXPECT_LT(table.lengths[3], 1000U);
  EXPECT_EQ(table.sums.checksums[2], checksum(Bytes(kFrameSize))) << "of the frame as it is read";
}

TEST_F(PackedLayerTest, AFrameIsUnpackedOnceByWhoReadsItBlockByBlock) {
  write_layer();
  const auto layer = open().value();
  Bytes block(kBlockSize);
  ASSERT_TRUE(layer->read(0, block));
  const uint64_t before = fs_.calls();
  for (uint64_t i = 0; i < 16; ++i) ASSERT_TRUE(layer->read(i * kBlockSize, block));
  EXPECT_EQ(fs_.calls(), before);
  ASSERT_TRUE(layer->read(kFrameSize, block));
  EXPECT_EQ(fs_.calls(), before + 1);
}

// The frame that a thread keeps is that of one layer, also when another one comes to be at the same address.
TEST_F(PackedLayerTest, TheKeptFrameIsOfThisLayer) {
  write_layer();
  Bytes block(kBlockSize);
  ASSERT_TRUE(open().value()->read(kFrameSize, block));
  const Bytes first = block;
  std::filesystem::remove(path());
  const auto writer = PackedLayerWriter::create(fs_, store_.layers_dir(), id_, kSize).value();
  ASSERT_TRUE(writer->write(kFrameSize, Bytes(kBlockSize, std::byte{9})));
  ASSERT_TRUE(writer->write(2 * kFrameSize, Bytes(kBlockSize, std::byte{9})));
  ASSERT_TRUE(writer->finish());
  ASSERT_TRUE(open().value()->read(kFrameSize, block));
  EXPECT_EQ(block, Bytes(kBlockSize, std::byte{9}));
}

TEST_F(PackedLayerTest, EveryDamagedByteOfAFrameIsDataLossAndGivesNoBytes) {
  write_layer();
  whole_ = testing::read_whole_file(path());
  const PackedTable table = this->table();
  for (const size_t index : {size_t{0}, size_t{1}, size_t{3}}) {
    const uint64_t step = std::max<uint64_t>(1, table.lengths[index] / 40);
    for (uint64_t at = 0; at < table.lengths[index]; at += step) {
      Bytes file = whole_;
      file[table.offsets[index] + at] ^= std::byte{1};
      std::filesystem::remove(path());
      testing::write_whole_file(path(), file);
      const auto layer = open();
      ASSERT_TRUE(layer) << layer.error().message;
      const uint64_t offset = table.sums.frames[index] * kFrameSize + kBlockSize;
      Bytes out(kBlockSize, std::byte{1});
      const Status status = (*layer)->read(offset, out);
      if (status) {  // zstd has bits that mean nothing: then the bytes are right
        EXPECT_TRUE(std::equal(out.begin(), out.end(), content_.begin() + static_cast<ptrdiff_t>(offset)));
        continue;
      }
      EXPECT_EQ(status.error().code, Code::kDataLoss);
      EXPECT_THAT(status.error().message, HasSubstr("frame " + std::to_string(table.sums.frames[index])));
      EXPECT_THAT(status.error().message, HasSubstr(path().string()));
      EXPECT_EQ(out, Bytes(kBlockSize)) << "no byte of it is given";
    }
  }
}

TEST_F(PackedLayerTest, AFrameWithAnotherContentIsFoundByItsChecksum) {
  write_layer();
  whole_ = testing::read_whole_file(path());
  Bytes other(kFrameSize, std::byte{8});
  Bytes packed(kFrameSize);
  packed.resize(ZSTD_compress(packed.data(), packed.size(), other.data(), other.size(), 3));
  const PackedTable table = this->table();
  ASSERT_GE(table.lengths[0], packed.size());
  Bytes file = whole_;
  std::copy(packed.begin(), packed.end(), file.begin() + static_cast<ptrdiff_t>(table.offsets[0]));
  // What is left of the old frame would be read as a second one: an empty skippable frame covers it.
  std::filesystem::remove(path());
  testing::write_whole_file(path(), file);
  const auto layer = open().value();
  EXPECT_EQ(layer->read(0, other).error().code, Code::kDataLoss);
  EXPECT_FALSE(layer->verified_whole());
}

TEST_F(PackedLayerTest, HostileTablesAreRefused) {
  write_layer();
  whole_ = testing::read_whole_file(path());
  const size_t t = table().end();
  const size_t offsets = t + 4 * 8;
  const size_t frames = offsets + 4 * 8;
  const size_t lengths = frames + 4 * 4;
  EXPECT_THAT(refusal([](Bytes&) {}), HasSubstr("taken"));
  EXPECT_THAT(refusal([](Bytes& file) { file[0] = std::byte{'X'}; }), HasSubstr("STASISLP"));
  EXPECT_THAT(refusal(set<uint32_t>(8, 2)), HasSubstr("version 2"));
  EXPECT_THAT(refusal(set<uint32_t>(12, 4096)), HasSubstr("frames of 4096"));
  EXPECT_THAT(refusal(set<uint64_t>(16, kMaxAddressSpace + kBlockSize)), HasSubstr("address space"));
  EXPECT_THAT(refusal(set<uint64_t>(16, kFrameSize)), HasSubstr("behind the layer's end"));
  EXPECT_THAT(refusal(set<uint64_t>(24, kBlockSize)), HasSubstr("tells of"));
  EXPECT_THAT(refusal(set<uint64_t>(32, 1)), HasSubstr("belongs to"));
  EXPECT_THAT(refusal(set<uint32_t>(48, 2)), HasSubstr("kind 2"));
  EXPECT_THAT(refusal(set<uint32_t>(52, 2)), HasSubstr("method 2"));
  EXPECT_THAT(refusal(set<uint64_t>(56, 1U << 28)), HasSubstr("does not fit"));
  EXPECT_THAT(refusal(set<uint64_t>(56, ~uint64_t{0} / 24 + 2)), HasSubstr("does not fit"));
  EXPECT_THAT(refusal(set<uint64_t>(64, ~uint64_t{0})), HasSubstr("does not fit"));
  EXPECT_THAT(refusal(set<uint64_t>(64, 0)), HasSubstr("does not fit"));
  EXPECT_THAT(refusal(set<uint64_t>(offsets + 8, 81)), HasSubstr("out of place"));
  EXPECT_THAT(refusal(set<uint32_t>(frames + 4, 0)), HasSubstr("sorted"));
  EXPECT_THAT(refusal(set<uint32_t>(lengths + 4, kFrameSize + 1)), HasSubstr("longer"));
  EXPECT_THAT(refusal(set<uint32_t>(lengths + 12, 1)), HasSubstr("no frame"));
  EXPECT_THAT(refusal([](Bytes& file) { file.resize(file.size() - 1); }), HasSubstr("does not fit"));
  EXPECT_THAT(refusal([](Bytes& file) { file.resize(79); }), HasSubstr("shorter"));
  EXPECT_THAT(refusal([](Bytes& file) { file.clear(); }), HasSubstr("shorter"));
}

TEST_F(PackedLayerTest, EveryFlippedBitOfHeaderAndTableIsFound) {
  write_layer();
  whole_ = testing::read_whole_file(path());
  const size_t table_at = table().end();
  for (size_t at = 0; at < whole_.size(); at += at == kPackedHeader - 1 ? table_at - at : 1) {
    Bytes file = whole_;
    file[at] ^= std::byte{1};
    std::filesystem::remove(path());
    testing::write_whole_file(path(), file);
    const auto layer = open();
    ASSERT_FALSE(layer) << "byte " << at;
    EXPECT_EQ(layer.error().code, Code::kDataLoss);
  }
}

// A frame that says that it holds gigabytes costs its 64 KiB.
TEST_F(PackedLayerTest, FramesThatAreNoneAreRefusedWithinTheirLength) {
  Bytes huge(1 << 20, std::byte{1});
  Bytes packed(1000);
  packed.resize(ZSTD_compress(packed.data(), packed.size(), huge.data(), huge.size(), 3));
  Bytes out(kFrameSize + 1, std::byte{0xa5});
  const auto frame = std::span(out).first(kFrameSize);
  EXPECT_EQ(unpack_frame(packed, frame).error().code, Code::kDataLoss) << "longer";
  Bytes small(kBlockSize, std::byte{1});
  packed.resize(1000);
  packed.resize(ZSTD_compress(packed.data(), packed.size(), small.data(), small.size(), 3));
  EXPECT_EQ(unpack_frame(packed, frame).error().code, Code::kDataLoss) << "shorter";
  EXPECT_EQ(unpack_frame(Bytes(100, std::byte{7}), frame).error().code, Code::kDataLoss);
  EXPECT_EQ(unpack_frame(Bytes(3, std::byte{7}), frame).error().code, Code::kDataLoss);
  EXPECT_EQ(out[kFrameSize], std::byte{0xa5});
}

TEST_F(PackedLayerTest, AFailedReadIsToldAndTheNextOneIsRight) {
  write_layer();
  const auto layer = open().value();
  Bytes out(kBlockSize, std::byte{1});
  fs_.fail_at(1, EIO);
  const Status status = layer->read(kBlockSize, out);
  EXPECT_THAT(status.error().message, HasSubstr("injected"));
  EXPECT_EQ(out, Bytes(kBlockSize));
  fs_.heal();
  ASSERT_TRUE(layer->read(kBlockSize, out));
  EXPECT_EQ(out, Bytes(kBlockSize, std::byte{3}));
}

TEST_F(PackedLayerTest, ManyThreadsReadOneLayer) {
  write_layer();
  const auto layer = open().value();
  std::vector<std::thread> threads;
  for (uint64_t seed = 0; seed < 4; ++seed) {
    threads.emplace_back([&, seed] {
      Random random(seed);
      Bytes out(kBlockSize);
      for (int i = 0; i < 300; ++i) {
        const uint64_t offset = testing::pick(random, 0, 47) * kBlockSize;
        ASSERT_TRUE(layer->read(offset, out));
        ASSERT_TRUE(std::equal(out.begin(), out.end(), content_.begin() + static_cast<ptrdiff_t>(offset)));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  ASSERT_TRUE(layer->verify_all());
  EXPECT_TRUE(layer->verified_whole());
}

TEST_F(PackedLayerTest, AnUnfinishedWriterLeavesNothingAndNothingIsOverwritten) {
  {
    const auto writer = PackedLayerWriter::create(fs_, store_.layers_dir(), id_, kSize).value();
    ASSERT_TRUE(writer->write(0, Bytes(kBlockSize, std::byte{1})));
    EXPECT_EQ(writer->write(0, Bytes(kBlockSize)).error().code, Code::kInvalidArgument) << "not behind it";
    EXPECT_EQ(writer->write(kSize, Bytes(kBlockSize)).error().code, Code::kInvalidArgument);
    EXPECT_EQ(writer->write(kBlockSize, Bytes(100)).error().code, Code::kInvalidArgument);
  }
  EXPECT_TRUE(std::filesystem::is_empty(store_.layers_dir()));
  write_layer();
  EXPECT_EQ(PackedLayerWriter::create(fs_, store_.layers_dir(), id_, kSize).error().code, Code::kAlreadyExists);
  EXPECT_EQ(LayerWriter::create(fs_, store_.layers_dir(), id_, kSize).error().code, Code::kAlreadyExists);
  EXPECT_EQ(PackedLayerWriter::create(fs_, store_.layers_dir(), LayerId::random(), kMaxAddressSpace + kBlockSize)
                .error()
                .code,
            Code::kInvalidArgument);
}

TEST_F(PackedLayerTest, AMissingLayerIsDataLoss) {
  const auto layer = open();
  ASSERT_FALSE(layer);
  EXPECT_EQ(layer.error().code, Code::kDataLoss);
  EXPECT_THAT(layer.error().message, HasSubstr(id_.text()));
}

}  // namespace
}  // namespace stasis::snapshot
