// The checksum file of a layer.
#include "snapshot/layer_sums.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "snapshot/testing/fixtures.h"
#include "snapshot/testing/hostile.h"

namespace stasis::snapshot {
namespace {

using testing::Bytes;
using ::testing::HasSubstr;

LayerSums sample_sums() {
  return {LayerId{Uuid{{1, 2, 3}}}, 5 * kFrameSize, 3 * kBlockSize, {0, 2, 4}, {0x0123456789abcdef, 42, ~uint64_t{0}}};
}

TEST(LayerSumsTest, Version1IsReadAsItWasWritten) {
  const Bytes golden = testing::from_hex(
      "5354415349534c5301000000000001000000050000000000003000000000000001020300000000000000000000000000"
      "0100000000000000030000000000000018918a1ae1387ec5efcdab89674523012a00000000000000ffffffffffffffff"
      "000000000200000004000000");
  EXPECT_EQ(testing::hex(sample_sums().encode()), testing::hex(golden));
  const auto sums = LayerSums::decode(golden);
  ASSERT_TRUE(sums) << sums.error().message;
  EXPECT_EQ(sums->id, sample_sums().id);
  EXPECT_EQ(sums->size, sample_sums().size);
  EXPECT_EQ(sums->data_bytes, sample_sums().data_bytes);
  EXPECT_EQ(sums->frames, sample_sums().frames);
  EXPECT_EQ(sums->checksums, sample_sums().checksums);
}

TEST(LayerSumsTest, TheChecksumIsXxh3) {
  EXPECT_EQ(checksum_text(checksum({})), "2d06800538d394c2");  // the published value for nothing, seed 0
  const std::string text = "Stasis";
  EXPECT_EQ(checksum_text(checksum(std::as_bytes(std::span(text)))), "097d8a6e226a6f69");
}

TEST(LayerSumsTest, OnlyTheWholeFileDecodes) {
  testing::expect_only_whole(sample_sums().encode(), [](const Bytes& bytes) { return LayerSums::decode(bytes); });
}

TEST(LayerSumsTest, TablesThatAreWrongAreRefused) {
  const auto refusal = [](auto change) {
    LayerSums sums = sample_sums();
    change(sums);
    const auto decoded = LayerSums::decode(sums.encode());
    return decoded ? std::string() : decoded.error().message;
  };
  EXPECT_EQ(refusal([](LayerSums&) {}), "");
  EXPECT_THAT(refusal([](LayerSums& sums) { sums.frames = {0, 2, 5}; }), HasSubstr("frame 5 behind"));
  EXPECT_THAT(refusal([](LayerSums& sums) { sums.frames = {0, 2, 2}; }), HasSubstr("not sorted"));
  EXPECT_THAT(refusal([](LayerSums& sums) { sums.frames = {2, 0, 4}; }), HasSubstr("not sorted"));
  EXPECT_THAT(refusal([](LayerSums& sums) { sums.size = 0; }), HasSubstr("layer of 0 bytes"));
  EXPECT_THAT(refusal([](LayerSums& sums) { sums.size = kMaxAddressSpace + kBlockSize; }), HasSubstr("layer of"));
  EXPECT_THAT(refusal([](LayerSums& sums) { sums.data_bytes = 2 * kBlockSize; }), HasSubstr("8192 bytes in 3 frames"));
  EXPECT_THAT(refusal([](LayerSums& sums) { sums.data_bytes = 4 * kFrameSize; }), HasSubstr("in 3 frames"));
}

}  // namespace
}  // namespace stasis::snapshot
