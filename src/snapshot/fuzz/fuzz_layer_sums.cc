// Bytes are no checksum file, or one whose frames are all found and that encodes to the same bytes.
#include <cstdlib>

#include "snapshot/layer_sums.h"
#include "snapshot/testing/reseal.h"

namespace stasis::snapshot {
namespace {

void require(bool held) {
  if (!held) std::abort();
}

void check(std::span<const std::byte> bytes) {
  const auto sums = LayerSums::decode(bytes);
  if (!sums) return;
  const auto encoded = sums->encode();
  require(std::equal(encoded.begin(), encoded.end(), bytes.begin(), bytes.end()));
  for (size_t i = 0; i < sums->frames.size(); ++i) {
    require(sums->find(sums->frames[i]) == i);
    const Range range = sums->frame_range(sums->frames[i]);
    require(range.length > 0 && range.length <= kFrameSize && range.end() <= sums->size);
  }
}

}  // namespace
}  // namespace stasis::snapshot

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using stasis::snapshot::testing::Resealer;
  return stasis::snapshot::testing::check_with_and_without_seal(data, size, stasis::snapshot::check,
                                                                &Resealer::layer_sums);
}
