#include "snapshot/frame_checksum.h"

#include <gtest/gtest.h>

#include "snapshot/block_map.h"
#include "snapshot/checksum.h"
#include "snapshot/testing/fixtures.h"

namespace stasis::snapshot {
namespace {

using testing::Bytes;
using testing::pick;
using testing::Random;

// Any frame, any blocks of it holes: what the library makes of the whole frame.
TEST(FrameChecksumTest, IsTheChecksumOfTheFrameWithItsHolesAsZeros) {
  Random random(1);
  for (int i = 0; i < 3000; ++i) {
    Bytes frame(pick(random, 1, kFrameSize / kBlockSize) * kBlockSize);
    FrameChecksum sum(frame.size());
    const uint64_t density = pick(random, 0, 8);
    for (uint64_t at = 0; at < frame.size();) {
      const uint64_t length = pick(random, 1, (frame.size() - at) / kBlockSize) * kBlockSize;
      const auto run = std::span(frame).subspan(at, length);
      if (pick(random, 1, 8) <= density) {
        std::ranges::copy(testing::random_bytes(random, length), run.begin());
        sum.add(run);
      } else {
        sum.add_zeros(length);
      }
      at += length;
      ASSERT_EQ(sum.position(), at);
    }
    ASSERT_EQ(sum.digest(), checksum(frame)) << "a frame of " << frame.size() << " bytes, the " << i << "th";
  }
}

}  // namespace
}  // namespace stasis::snapshot
