// Bytes are no block map, or a map that covers its address space and encodes to the same bytes: as they come, and with
// right checksums.
#include <cstdlib>

#include "snapshot/block_map.h"
#include "snapshot/testing/reseal.h"

namespace stasis::snapshot {
namespace {

void require(bool held) {
  if (!held) std::abort();
}

void check(std::span<const std::byte> bytes) {
  const auto map = BlockMap::decode(bytes);
  if (!map) return;
  const auto encoded = map->encode();
  require(encoded && std::equal(encoded->begin(), encoded->end(), bytes.begin(), bytes.end()));
  uint64_t end = 0;
  for (const Extent& extent : map->extents()) {
    require(extent.offset == end && extent.length > 0 && map->find(extent.end() - 1) == extent);
    end = extent.end();
  }
  require(end == map->size());
  const Change last{{map->size() - kBlockSize, kBlockSize}, true};
  require(map->merge(LayerId{}, std::span(&last, 1)).has_value());
}

}  // namespace
}  // namespace stasis::snapshot

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using stasis::snapshot::testing::Resealer;
  return stasis::snapshot::testing::check_with_and_without_seal(data, size, stasis::snapshot::check,
                                                                &Resealer::block_map);
}
