#include "snapshot/zstd_frame.h"

#include <zstd.h>

#include <cstdint>
#include <cstring>

namespace stasis::snapshot {

bool is_one_zstd_frame(std::span<const std::byte> packed) {
  const uint32_t magic = ZSTD_MAGICNUMBER;
  if (packed.size() < sizeof(magic) || std::memcmp(packed.data(), &magic, sizeof(magic)) != 0) return false;
  return ZSTD_findFrameCompressedSize(packed.data(), packed.size()) == packed.size();  // an error is no size
}

}  // namespace stasis::snapshot
