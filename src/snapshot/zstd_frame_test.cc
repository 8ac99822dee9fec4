#include "snapshot/zstd_frame.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zstd.h>

#include "snapshot/archive_records.h"
#include "snapshot/crc32c.h"
#include "snapshot/packed_layer.h"
#include "snapshot/testing/fixtures.h"

namespace stasis::snapshot {
namespace {

using testing::Bytes;
using ::testing::HasSubstr;

// What frames of zstd 0.1 to 0.7 begin with.
constexpr uint32_t kOldMagic[] = {0xFD2FB51E, 0xFD2FB522, 0xFD2FB523, 0xFD2FB524, 0xFD2FB525, 0xFD2FB526, 0xFD2FB527};

Bytes frame_of(const Bytes& content) {
  Bytes packed(ZSTD_compressBound(content.size()));
  packed.resize(ZSTD_compress(packed.data(), packed.size(), content.data(), content.size(), 1));
  return packed;
}

// As a frame of an old zstd, and behind `before`.
Bytes old_frame_behind(Bytes before, uint32_t magic) {
  const size_t begin = before.size();
  before.resize(begin + 40);
  std::memcpy(before.data() + begin, &magic, sizeof(magic));
  return before;
}

TEST(ZstdFrameTest, OneFrameOfTodayAndNothingElse) {
  const Bytes good = frame_of(testing::block_of(7));
  EXPECT_TRUE(is_one_zstd_frame(good));
  EXPECT_FALSE(is_one_zstd_frame({}));
  EXPECT_FALSE(is_one_zstd_frame(std::span(good).first(3)));
  EXPECT_FALSE(is_one_zstd_frame(std::span(good).first(good.size() - 1)));
  Bytes twice = good;
  twice.insert(twice.end(), good.begin(), good.end());
  EXPECT_FALSE(is_one_zstd_frame(twice));
  for (const uint32_t magic : kOldMagic) {
    EXPECT_FALSE(is_one_zstd_frame(old_frame_behind({}, magic)));
    EXPECT_FALSE(is_one_zstd_frame(old_frame_behind(good, magic)));
  }
}

TEST(ZstdFrameTest, APackedLayerWithAnOldFrameIsRefused) {
  Bytes out(kFrameSize);
  for (const Bytes& before : {Bytes(), frame_of(Bytes(kFrameSize))}) {
    const Status refused = unpack_frame(old_frame_behind(before, kOldMagic[6]), out);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Code::kDataLoss);
    EXPECT_THAT(refused.error().message, HasSubstr("zstd did not write"));
  }
}

// The bytes of a record whose payload is packed as `packed`, with the right checksum of its header.
Bytes record_packed_as(const Bytes& payload, const Bytes& packed) {
  constexpr size_t kPrefix = 8;
  constexpr size_t kHeader = 64;
  RecordWriter writer;
  const auto written = writer.encode({RecordKind::kNote, 0, 0, payload}).value();
  Bytes record(written.begin(), written.begin() + kPrefix + kHeader);
  const auto length = static_cast<uint32_t>(packed.size());
  std::memcpy(record.data() + kPrefix + 40, &length, sizeof(length));
  const uint32_t crc = crc32c(std::span(record).subspan(kPrefix, kHeader - sizeof(crc)));
  std::memcpy(record.data() + kPrefix + kHeader - sizeof(crc), &crc, sizeof(crc));
  record.insert(record.end(), packed.begin(), packed.end());
  return record;
}

Result<Record> read_record(const Bytes& bytes) {
  size_t position = 0;
  const ArchiveSource source = [&](std::span<std::byte> out) -> Result<size_t> {
    const size_t n = std::min(out.size(), bytes.size() - position);
    std::copy_n(bytes.begin() + static_cast<ptrdiff_t>(position), n, out.begin());
    position += n;
    return n;
  };
  return RecordReader(source).next();
}

TEST(ZstdFrameTest, AnArchiveWithAnOldFrameIsRefused) {
  const Bytes payload = testing::block_of(7);
  const Bytes good = frame_of(payload);
  ASSERT_TRUE(read_record(record_packed_as(payload, good)));
  for (const Bytes& before : {Bytes(), good}) {
    const auto refused = read_record(record_packed_as(payload, old_frame_behind(before, kOldMagic[6])));
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Code::kDataLoss);
    EXPECT_THAT(refused.error().message, HasSubstr("zstd did not write"));
  }
}

}  // namespace
}  // namespace stasis::snapshot
