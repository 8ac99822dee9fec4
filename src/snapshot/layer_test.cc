#include "snapshot/layer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <array>
#include <thread>

#include "base/testing/faulty_file_system.h"
#include "snapshot/layer_sums.h"
#include "snapshot/testing/hostile.h"

namespace stasis::snapshot {
namespace {

using stasis::testing::FaultyFileSystem;
using testing::block_of;
using testing::blocks;
using testing::Bytes;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::Random;
using testing::random_bytes;

// Three frames, the last of them short; data in the first and the last.
constexpr uint64_t kSize = 2 * kFrameSize + 3 * kBlockSize;

mode_t mode_of(const Path& path) {
  struct stat st {};
  EXPECT_EQ(::stat(path.c_str(), &st), 0);
  return st.st_mode & 07777;
}

class LayerTest : public testing::StoreTest {
 protected:
  Path data_path() const { return layer_data_path(store_.layers_dir(), id_); }
  Path sums_path() const { return layer_sums_path(store_.layers_dir(), id_); }

  void write_layer() {
    const auto writer = LayerWriter::create(fs_, store_.layers_dir(), id_, kSize);
    ASSERT_TRUE(writer);
    Random random(7);
    for (const Range range : {blocks(1, 2), blocks(5, 1), blocks(33, 2)}) {
      const Bytes bytes = random_bytes(random, range.length);
      std::copy(bytes.begin(), bytes.end(), content_.begin() + static_cast<ptrdiff_t>(range.offset));
      ASSERT_TRUE((*writer)->write(range.offset, bytes));
    }
    const auto info = (*writer)->finish();
    ASSERT_TRUE(info) << info.error().message;
    EXPECT_EQ(info->data_bytes, 5 * kBlockSize);
  }
  std::shared_ptr<Layer> open_layer() {
    auto layer = Layer::open(fs_, store_.layers_dir(), id_);
    EXPECT_TRUE(layer) << layer.error().message;
    return layer ? *layer : nullptr;
  }
  Bytes expected(Range range) const {
    const auto begin = content_.begin() + static_cast<ptrdiff_t>(range.offset);
    return Bytes(begin, begin + static_cast<ptrdiff_t>(range.length));
  }
  std::string open_error() {
    const auto layer = Layer::open(fs_, store_.layers_dir(), id_);
    if (layer) return "";
    EXPECT_EQ(layer.error().code, Code::kDataLoss);
    return layer.error().message;
  }

  const LayerId id_{Uuid::parse("00112233-4455-4677-8899-aabbccddeeff").value()};
  Bytes content_ = Bytes(kSize);
};

TEST_F(LayerTest, WhatIsWrittenIsReadAndTheFilesAreReadOnly) {
  write_layer();
  EXPECT_THAT(layer_files(), ElementsAre(id_.text() + ".raw", id_.text() + ".sums"));
  EXPECT_EQ(mode_of(data_path()), 0444U);
  EXPECT_EQ(mode_of(sums_path()), 0444U);
  const auto layer = open_layer();
  EXPECT_EQ(layer->id(), id_);
  EXPECT_EQ(layer->size(), kSize);
  for (const Range range : {blocks(0, 16), blocks(1, 1), blocks(5, 1), blocks(32, 3), blocks(34, 1)}) {
    Bytes bytes(range.length, std::byte{0xee});
    ASSERT_TRUE(layer->read(range.offset, bytes));
    EXPECT_EQ(bytes, expected(range));
  }
}

TEST_F(LayerTest, ChecksumsCoverWholeFramesWithHolesAsZeros) {
  write_layer();
  const auto sums = LayerSums::decode(testing::read_whole_file(sums_path()));
  ASSERT_TRUE(sums) << sums.error().message;
  EXPECT_THAT(sums->frames, ElementsAre(0, 2));
  EXPECT_THAT(sums->checksums,
              ElementsAre(checksum(expected({0, kFrameSize})), checksum(expected({2 * kFrameSize, 3 * kBlockSize}))));
}

TEST_F(LayerTest, ChecksumsAreTheSameHoweverTheDataComes) {
  Random random(8);
  const Bytes bytes = random_bytes(random, kSize);
  FrameHasher whole(id_, kSize);
  whole.add(0, bytes);
  FrameHasher pieces(id_, kSize);
  for (uint64_t at = 0; at < kSize;) {
    const uint64_t length = std::min(kSize - at, testing::pick(random, 1, 20) * kBlockSize);
    pieces.add(at, std::span(bytes).subspan(at, length));
    at += length;
  }
  EXPECT_EQ(whole.finish().encode(), pieces.finish().encode());
}

TEST_F(LayerTest, ADamagedFrameIsDataLossAndGivesNoBytes) {
  write_layer();
  testing::damage_file(data_path(), 2 * kBlockSize + 17);
  const auto layer = open_layer();
  for (const Range range : {blocks(1, 1), blocks(5, 1), blocks(0, 16)}) {
    Bytes bytes(range.length, std::byte{0xee});
    const Status status = layer->read(range.offset, bytes);
    ASSERT_FALSE(status) << "the whole frame is damaged, also where its bytes are right";
    EXPECT_EQ(status.error().code, Code::kDataLoss);
    EXPECT_THAT(status.error().message, HasSubstr(data_path().string()));
    EXPECT_THAT(status.error().message, HasSubstr("frame 0 "));
    EXPECT_EQ(bytes, Bytes(range.length));
  }
  Bytes bytes(2 * kBlockSize);
  EXPECT_TRUE(layer->read(33 * kBlockSize, bytes)) << "other frames are whole";
  EXPECT_EQ(layer->verify_all().error().code, Code::kDataLoss);
  EXPECT_FALSE(layer->verified_whole());
}

TEST_F(LayerTest, DamageInAHoleOfAFrameIsFoundToo) {
  write_layer();
  testing::damage_file(data_path(), 9 * kBlockSize);
  EXPECT_EQ(open_layer()->verify_all().error().code, Code::kDataLoss);
}

TEST_F(LayerTest, VerifyAllVerifiesWhole) {
  write_layer();
  const auto layer = open_layer();
  EXPECT_FALSE(layer->verified_whole());
  Bytes block(kBlockSize);
  ASSERT_TRUE(layer->read(kBlockSize, block));
  EXPECT_FALSE(layer->verified_whole());
  ASSERT_TRUE(layer->verify_all());
  EXPECT_TRUE(layer->verified_whole());
}

TEST_F(LayerTest, AFrameIsVerifiedOnceAndCostsNoCallFromThenOn) {
  write_layer();
  FaultyFileSystem counting;
  const auto layer = Layer::open(counting, store_.layers_dir(), id_).value();
  ASSERT_TRUE(layer->verify_all());
  // Damage behind a verified frame is not looked for again: the kernel has the page, and the check was made.
  testing::damage_file(data_path(), 3 * kBlockSize);
  const uint64_t before = counting.calls();
  Bytes bytes(16 * kBlockSize);
  ASSERT_TRUE(layer->read(0, bytes));
  EXPECT_EQ(counting.calls() - before, 0U);
}

TEST_F(LayerTest, WhatCannotBeMappedIsRead) {
  write_layer();
  FaultyFileSystem faulty;
  faulty.fail_at(7, ENOMEM);  // after the checksums: info, info, open, read; and of the data: info, open
  const auto layer = Layer::open(faulty, store_.layers_dir(), id_);
  ASSERT_TRUE(faulty.fired());
  ASSERT_TRUE(layer) << layer.error().message;
  ASSERT_TRUE((*layer)->verify_all());
  EXPECT_TRUE((*layer)->view(0, kFrameSize).empty());
  const uint64_t before = faulty.calls();
  Bytes bytes(16 * kBlockSize);
  ASSERT_TRUE((*layer)->read(0, bytes));
  EXPECT_EQ(bytes, expected(blocks(0, 16)));
  EXPECT_EQ(faulty.calls() - before, 1U) << "neighbours are read at once";
}

// Counts reads, and knows what is in memory: at most the pages of a mask.
class KnowingFileSystem final : public stasis::testing::ForwardingFileSystem {
 public:
  KnowingFileSystem() : ForwardingFileSystem(real_file_system()) {}
  void forget(size_t page) { known_ &= ~(uint64_t{1} << page); }
  int reads() const { return reads_; }

  Result<size_t> read_at(int fd, uint64_t offset, std::span<std::byte> out) override {
    ++reads_;
    return inner_.read_at(fd, offset, out);
  }
  uint64_t resident_pages(const FileMapping& mapping, Range range) override {
    return inner_.resident_pages(mapping, range) & known_;
  }
  bool is_hole(int fd, Range range) override { return inner_.is_hole(fd, range); }

 private:
  std::optional<Error> before(const char* /*what*/) override { return std::nullopt; }
  uint64_t known_ = ~uint64_t{0};
  int reads_ = 0;
};

TEST_F(LayerTest, FramesThatAreInMemoryAreVerifiedWhereTheyAre) {
  write_layer();
  KnowingFileSystem knowing;
  const auto layer = Layer::open(knowing, store_.layers_dir(), id_).value();
  const int before = knowing.reads();
  for (const Range range : {blocks(1, 1), blocks(5, 1), blocks(33, 2)}) {
    Bytes bytes(range.length);
    ASSERT_TRUE(layer->read(range.offset, bytes));
    EXPECT_EQ(bytes, expected(range));
  }
  EXPECT_TRUE(layer->verified_whole());
  EXPECT_EQ(knowing.reads(), before);
}

TEST_F(LayerTest, AFrameOfWhichABlockIsNotInMemoryIsRead) {
  write_layer();
  KnowingFileSystem knowing;
  const auto layer = Layer::open(knowing, store_.layers_dir(), id_).value();
  knowing.forget(1);
  const int before = knowing.reads();
  Bytes bytes(kBlockSize);
  ASSERT_TRUE(layer->read(5 * kBlockSize, bytes));
  EXPECT_EQ(bytes, expected(blocks(5, 1)));
  EXPECT_EQ(knowing.reads(), before + 1);
}

TEST_F(LayerTest, DamageThatIsNotInMemoryIsNotTakenForAHole) {
  write_layer();
  testing::damage_file(data_path(), 9 * kBlockSize);
  KnowingFileSystem knowing;
  const auto layer = Layer::open(knowing, store_.layers_dir(), id_).value();
  knowing.forget(9);
  Bytes bytes(kBlockSize);
  EXPECT_EQ(layer->read(5 * kBlockSize, bytes).error().code, Code::kDataLoss);
  EXPECT_FALSE(layer->is_verified(0));
}

TEST_F(LayerTest, AViewIsOfVerifiedFramesOnly) {
  write_layer();
  const auto layer = open_layer();
  EXPECT_TRUE(layer->view(blocks(1, 1).offset, kBlockSize).empty()) << "not verified";
  Bytes block(kBlockSize);
  ASSERT_TRUE(layer->read(kBlockSize, block));
  const auto view = layer->view(5 * kBlockSize, kBlockSize);
  EXPECT_EQ(Bytes(view.begin(), view.end()), expected(blocks(5, 1)));
  EXPECT_TRUE(layer->view(15 * kBlockSize, 2 * kBlockSize).empty()) << "the second frame holds nothing";
  EXPECT_TRUE(layer->view(33 * kBlockSize, kBlockSize).empty()) << "not verified";
  const auto for_kernel = layer->view_for_kernel(5 * kBlockSize, kBlockSize);
  EXPECT_EQ(Bytes(for_kernel.begin(), for_kernel.end()), expected(blocks(5, 1)));
  EXPECT_TRUE(layer->view_for_kernel(33 * kBlockSize, kBlockSize).empty()) << "not verified";
}

TEST_F(LayerTest, AVerifiedFrameThatIsGoneIsDataLossAndNotASignal) {
  write_layer();
  const auto layer = open_layer();
  ASSERT_TRUE(layer->verify_all());
  std::filesystem::permissions(data_path(), std::filesystem::perms(0600));
  std::filesystem::resize_file(data_path(), 33 * kBlockSize);
  Bytes bytes(2 * kBlockSize, std::byte{0xee});
  const Status status = layer->read(33 * kBlockSize, bytes);
  EXPECT_EQ(status.error().code, Code::kDataLoss);
  EXPECT_THAT(status.error().message, HasSubstr(data_path().string()));
  EXPECT_EQ(bytes, Bytes(2 * kBlockSize));
  Bytes first(16 * kBlockSize);
  ASSERT_TRUE(layer->read(0, first)) << "the rest is still there";
  EXPECT_EQ(first, expected(blocks(0, 16)));
}

TEST_F(LayerTest, ReadsOutsideAreRefused) {
  write_layer();
  const auto layer = open_layer();
  Bytes block(kBlockSize);
  EXPECT_EQ(layer->read(1, block).error().code, Code::kInvalidArgument);
  EXPECT_EQ(layer->read(0, std::span(block).first(100)).error().code, Code::kInvalidArgument);
  EXPECT_EQ(layer->read(35 * kBlockSize, block).error().code, Code::kOutOfRange);
  EXPECT_EQ(layer->read(~uint64_t{4095}, block).error().code, Code::kOutOfRange);
  const Status nothing_there = layer->read(20 * kBlockSize, block);
  EXPECT_EQ(nothing_there.error().code, Code::kDataLoss);
  EXPECT_THAT(nothing_there.error().message, HasSubstr("no data in frame 1"));
}

TEST_F(LayerTest, MissingTornAndExchangedFilesAreDataLoss) {
  EXPECT_THAT(open_error(), HasSubstr(id_.text()));
  write_layer();
  const Bytes sums = testing::read_whole_file(sums_path());
  std::filesystem::remove(sums_path());
  EXPECT_THAT(open_error(), HasSubstr(".sums"));
  testing::write_whole_file(sums_path(), Bytes(sums.begin(), sums.begin() + 80));
  EXPECT_THAT(open_error(), HasSubstr("does not fit"));
  LayerSums other = LayerSums::decode(sums).value();
  other.id = LayerId{Uuid{{5}}};
  testing::write_whole_file(sums_path(), other.encode());
  EXPECT_THAT(open_error(), HasSubstr("belongs to layer"));
  testing::write_whole_file(sums_path(), sums);
  std::filesystem::permissions(data_path(), std::filesystem::perms(0600));
  std::filesystem::resize_file(data_path(), kSize - kBlockSize);
  EXPECT_THAT(open_error(), HasSubstr("instead of"));
  std::filesystem::remove(data_path());
  EXPECT_THAT(open_error(), HasSubstr(".raw"));
}

TEST_F(LayerTest, AFileThatGetsShorterWhileItIsOpenIsDataLoss) {
  write_layer();
  const auto layer = open_layer();
  std::filesystem::permissions(data_path(), std::filesystem::perms(0600));
  std::filesystem::resize_file(data_path(), 33 * kBlockSize);
  Bytes bytes(2 * kBlockSize);
  EXPECT_EQ(layer->read(33 * kBlockSize, bytes).error().code, Code::kDataLoss);
}

TEST_F(LayerTest, ManyThreadsReadOneLayer) {
  write_layer();
  const auto layer = open_layer();
  std::array<std::thread, 4> threads;
  for (std::thread& thread : threads) {
    thread = std::thread([&] {
      for (int i = 0; i < 50; ++i) {
        for (const Range range : {blocks(0, 16), blocks(5, 1), blocks(33, 2)}) {
          Bytes bytes(range.length);
          EXPECT_TRUE(layer->read(range.offset, bytes));
          EXPECT_EQ(bytes, expected(range));
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(layer->verified_whole());
}

TEST_F(LayerTest, AnUnfinishedWriterLeavesNothing) {
  {
    const auto writer = LayerWriter::create(fs_, store_.layers_dir(), id_, kSize);
    ASSERT_TRUE(writer);
    ASSERT_TRUE((*writer)->write(0, block_of(1)));
    EXPECT_THAT(layer_files(), ElementsAre(id_.text() + ".raw.tmp"));
  }
  EXPECT_THAT(layer_files(), IsEmpty());
}

TEST_F(LayerTest, WritersRefuseWhatIsNotInOrder) {
  const auto writer = LayerWriter::create(fs_, store_.layers_dir(), id_, kSize);
  ASSERT_TRUE(writer);
  ASSERT_TRUE((*writer)->write(2 * kBlockSize, block_of(1)));
  EXPECT_EQ((*writer)->write(2 * kBlockSize, block_of(1)).error().code, Code::kInvalidArgument);
  EXPECT_EQ((*writer)->write(5, block_of(1)).error().code, Code::kInvalidArgument);
  EXPECT_EQ((*writer)->write(3 * kBlockSize, Bytes(100)).error().code, Code::kInvalidArgument);
  EXPECT_EQ((*writer)->write(35 * kBlockSize, block_of(1)).error().code, Code::kInvalidArgument);
  EXPECT_EQ(LayerWriter::create(fs_, store_.layers_dir(), LayerId{}, kSize).error().code, Code::kInvalidArgument);
  for (const uint64_t size : {uint64_t{0}, uint64_t{5}, kMaxAddressSpace + kBlockSize}) {
    EXPECT_EQ(LayerWriter::create(fs_, store_.layers_dir(), LayerId::random(), size).error().code,
              Code::kInvalidArgument);
  }
}

TEST_F(LayerTest, ALayerIsNeverOverwritten) {
  write_layer();
  EXPECT_EQ(LayerWriter::create(fs_, store_.layers_dir(), id_, kSize).error().code, Code::kAlreadyExists);
  const Path file = dir_.path() / "write.0";
  testing::write_whole_file(file, Bytes(kSize));
  EXPECT_EQ(adopt_layer(fs_, file, store_.layers_dir(), id_, kSize, {}).error().code, Code::kAlreadyExists);
  EXPECT_TRUE(open_layer()->verify_all());
}

TEST_F(LayerTest, AnAdoptedFileBecomesTheLayerWithoutACopy) {
  const Path file = dir_.path() / "write.0";
  const auto fd = fs_.create(file);
  ASSERT_TRUE(fs_.truncate(fd->get(), kSize));
  Random random(9);
  const Bytes bytes = random_bytes(random, 2 * kBlockSize);
  ASSERT_TRUE(fs_.write_at(fd->get(), 15 * kBlockSize, bytes));
  const auto inode = [](const Path& path) {
    struct stat st {};
    EXPECT_EQ(::stat(path.c_str(), &st), 0);
    return st.st_ino;
  };
  const auto before = inode(file);
  const auto info =
      adopt_layer(fs_, file, store_.layers_dir(), id_, kSize, std::vector<Range>{blocks(15, 1), blocks(16, 1)});
  ASSERT_TRUE(info) << info.error().message;
  EXPECT_EQ(info->data_bytes, 2 * kBlockSize);
  EXPECT_FALSE(exists(fs_, file));
  EXPECT_EQ(inode(data_path()), before);
  EXPECT_EQ(mode_of(data_path()), 0444U);
  const auto layer = open_layer();
  Bytes back(2 * kBlockSize);
  ASSERT_TRUE(layer->read(15 * kBlockSize, back));
  EXPECT_EQ(back, bytes);
  EXPECT_TRUE(layer->verified_whole());
}

TEST_F(LayerTest, AnAdoptionThatFailsLeavesTheFileWhereAndWhatItWas) {
  const Path file = dir_.path() / "write.0";
  const Bytes bytes(kSize, std::byte{3});
  testing::write_whole_file(file, bytes);
  const std::vector<Range> data{blocks(0, 3)};
  EXPECT_EQ(adopt_layer(fs_, file, store_.layers_dir(), id_, kSize + kBlockSize, data).error().code,
            Code::kInvalidArgument);
  EXPECT_EQ(adopt_layer(fs_, file, store_.layers_dir(), id_, kSize, std::vector<Range>{blocks(30, 10)}).error().code,
            Code::kInvalidArgument);
  FaultyFileSystem faulty;
  for (uint64_t n = 1;; ++n) {
    faulty.fail_at(n, EIO);
    const auto info = adopt_layer(faulty, file, store_.layers_dir(), id_, kSize, data);
    if (!faulty.fired()) break;
    ASSERT_FALSE(info) << "call " << n;
    EXPECT_THAT(layer_files(), IsEmpty()) << "call " << n;
    ASSERT_EQ(testing::read_whole_file(file), bytes) << "call " << n;
    EXPECT_EQ(mode_of(file), 0600U);
  }
  EXPECT_TRUE(open_layer()->verify_all());
}

}  // namespace
}  // namespace stasis::snapshot
