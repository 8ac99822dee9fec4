// Bytes are no manifest, or one that reads back as it is after it has been written again.
#include <cstdlib>

#include "snapshot/manifest.h"
#include "snapshot/testing/reseal.h"

namespace stasis::snapshot {
namespace {

void check(std::span<const std::byte> bytes) {
  const auto manifest = Manifest::decode(bytes);
  if (!manifest) return;
  const auto again = Manifest::decode(manifest->encode());
  if (!again || *again != *manifest) std::abort();
}

}  // namespace
}  // namespace stasis::snapshot

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using stasis::snapshot::testing::Resealer;
  return stasis::snapshot::testing::check_with_and_without_seal(data, size, stasis::snapshot::check,
                                                                &Resealer::manifest);
}
