// Bytes are no working set, or one that encodes to the same bytes.
#include <algorithm>
#include <cstdlib>

#include "snapshot/testing/reseal.h"
#include "snapshot/working_set.h"

namespace stasis::snapshot {
namespace {

void check(std::span<const std::byte> bytes) {
  const auto set = WorkingSet::decode(bytes);
  if (!set) return;
  const auto again = set->encode();
  if (!again || !std::equal(again->begin(), again->end(), bytes.begin(), bytes.end())) std::abort();
}

}  // namespace
}  // namespace stasis::snapshot

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using stasis::snapshot::testing::Resealer;
  return stasis::snapshot::testing::check_with_and_without_seal(data, size, stasis::snapshot::check,
                                                                &Resealer::working_set);
}
