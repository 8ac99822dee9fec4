// Bytes are no packed layer, or one whose table encodes to the same bytes and whose frames are read, or refused, within
// their 64 KiB.
#include <cstdlib>

#include "snapshot/packed_layer.h"
#include "snapshot/testing/reseal.h"

namespace stasis::snapshot {
namespace {

// An input can name thousands of frames of zeros.
constexpr size_t kMostFrames = 8;
constexpr std::byte kGuard{0xa5};

void require(bool held) {
  if (!held) std::abort();
}

bool starts_with(std::span<const std::byte> bytes, const std::vector<std::byte>& part) {
  return bytes.size() >= part.size() && std::equal(part.begin(), part.end(), bytes.begin());
}

void check(std::span<const std::byte> bytes) {
  const auto header = PackedHeader::decode(bytes, bytes.size());
  if (!header) return;
  const auto table = PackedTable::decode(*header, bytes.subspan(header->table_offset));
  if (!table) return;
  require(starts_with(bytes, table->encode_header()));
  require(starts_with(bytes.subspan(header->table_offset), table->encode()));
  static std::vector<std::byte> buffer(kFrameSize + 1);
  for (size_t i = 0; i < std::min(table->offsets.size(), kMostFrames); ++i) {
    const uint64_t length = table->sums.frame_range(table->sums.frames[i]).length;
    require(length > 0 && length <= kFrameSize);
    buffer[length] = kGuard;
    (void)unpack_frame(bytes.subspan(table->offsets[i], table->lengths[i]), std::span(buffer).first(length));
    require(buffer[length] == kGuard);
  }
}

}  // namespace
}  // namespace stasis::snapshot

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using stasis::snapshot::testing::Resealer;
  return stasis::snapshot::testing::check_with_and_without_seal(data, size, stasis::snapshot::check,
                                                                &Resealer::packed_layer);
}
