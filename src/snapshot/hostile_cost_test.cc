// What a small file that tells of a huge one costs: an error, and no memory. Its checksums are right, so that its
// counts are believed as far as anything is.
#include <gmock/gmock.h>

#include "base/testing/count_heap.h"
#include "snapshot/layer_sums.h"
#include "snapshot/testing/fixtures.h"
#include "snapshot/testing/reseal.h"

namespace stasis::snapshot {
namespace {

using stasis::testing::heap_held_by;
using testing::Bytes;
using testing::Resealer;

constexpr size_t kErrorText = 4096;

void put(Bytes& bytes, size_t offset, uint64_t value, size_t width) {
  std::memcpy(bytes.data() + offset, &value, width);
}

template <typename Decode>
void expect_cheap_refusal(const Bytes& bytes, Decode decode) {
  EXPECT_LT(heap_held_by([&] {
              const auto result = decode(bytes);
              ASSERT_FALSE(result);
              EXPECT_EQ(result.error().code, Code::kDataLoss) << result.error().message;
            }),
            kErrorText);
}

TEST(HostileCostTest, ABlockMapOfHugeCounts) {
  const Bytes good = BlockMap::zeros(uint64_t{1} << 44).value().merge(LayerId::random(), {}).value().encode().value();
  for (const uint64_t layers : {uint64_t{0}, uint64_t{65'535}, uint64_t{0xffffffff}}) {
    for (const uint64_t extents : {uint64_t{1} << 24, uint64_t{0xffffffff}}) {
      Bytes bytes = good;
      put(bytes, 72, layers, 4);
      put(bytes, 76, extents, 4);
      Resealer(bytes).block_map();
      expect_cheap_refusal(bytes, [](const Bytes& b) { return BlockMap::decode(b); });
    }
  }
}

TEST(HostileCostTest, ChecksumsOfHugeLayers) {
  const Bytes good = LayerSums{LayerId::random(), uint64_t{1} << 44, 4096, {0}, {1}}.encode();
  for (const uint64_t frames : {uint64_t{1} << 28, uint64_t{1} << 61, ~uint64_t{0}, ~uint64_t{0} / 12 + 2}) {
    Bytes bytes = good;
    put(bytes, 56, frames, 8);
    Resealer(bytes).layer_sums();
    expect_cheap_refusal(bytes, [](const Bytes& b) { return LayerSums::decode(b); });
  }
}

TEST(HostileCostTest, AManifestThatIsLongerThanItMayBe) {
  Bytes bytes(kMaxManifestSize + 1, std::byte{'['});
  std::memcpy(bytes.data(), "STASISMF\1\0\0\0\0\0\0\0", 16);
  Resealer(bytes).manifest();
  expect_cheap_refusal(bytes, [](const Bytes& b) { return Manifest::decode(b); });
}

}  // namespace
}  // namespace stasis::snapshot
