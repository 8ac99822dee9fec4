#include "snapshot/crc32c.h"

#include <boost/crc.hpp>
#include <cstring>

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

namespace stasis::snapshot {
namespace {

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) uint32_t crc32c_sse42(std::span<const std::byte> data, uint32_t crc) {
  uint64_t state = ~crc;
  while (data.size() >= sizeof(uint64_t)) {
    uint64_t word = 0;
    std::memcpy(&word, data.data(), sizeof(word));
    state = _mm_crc32_u64(state, word);
    data = data.subspan(sizeof(word));
  }
  uint32_t rest = static_cast<uint32_t>(state);
  for (const std::byte byte : data) rest = _mm_crc32_u8(rest, static_cast<uint8_t>(byte));
  return ~rest;
}
#endif

}  // namespace

uint32_t crc32c_portable(std::span<const std::byte> data, uint32_t crc) {
  // Boost's start value is not reflected, as ours is; a reflected remainder of ~crc continues an earlier result.
  static_assert(sizeof(unsigned int) == sizeof(uint32_t));
  uint32_t reflected = 0;
  for (int bit = 0; bit < 32; ++bit) reflected |= ((~crc >> bit) & 1) << (31 - bit);
  boost::crc_optimal<32, 0x1EDC6F41, 0, 0xFFFFFFFF, true, true> state(reflected);
  state.process_bytes(data.data(), data.size());
  return static_cast<uint32_t>(state.checksum());
}

uint32_t crc32c(std::span<const std::byte> data, uint32_t crc) {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("sse4.2")) return crc32c_sse42(data, crc);
#endif
  return crc32c_portable(data, crc);
}

}  // namespace stasis::snapshot
