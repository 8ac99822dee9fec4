#include "snapshot/crc32c.h"

#include <array>
#include <boost/crc.hpp>
#include <cstring>

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

namespace stasis::snapshot {
namespace {

#if defined(__x86_64__)
// The instruction takes three cycles and one can begin in each: three streams side by side, joined afterwards, are
// three times as fast as one. A stream is 1 KiB.
constexpr size_t kStream = 1024;

// What `state` becomes by kStream bytes of zeros behind it, as four tables of a byte each: that is a linear map.
using Shift = std::array<std::array<uint32_t, 256>, 4>;

constexpr Shift make_shift() {
  std::array<uint32_t, 32> map{};  // of each bit; first: by one bit of zeros
  map[0] = 0x82F63B78;             // the polynomial, reflected
  for (size_t bit = 1; bit < 32; ++bit) map[bit] = uint32_t{1} << (bit - 1);
  const auto apply = [](const std::array<uint32_t, 32>& to, uint32_t value) {
    uint32_t result = 0;
    for (size_t bit = 0; bit < 32; ++bit) result ^= (value >> bit & 1) != 0 ? to[bit] : 0;
    return result;
  };
  for (size_t bits = 1; bits < kStream * 8; bits *= 2) {
    const auto half = map;
    for (uint32_t& image : map) image = apply(half, image);
  }
  Shift shift{};
  for (size_t byte = 0; byte < 4; ++byte) {
    for (uint32_t value = 0; value < 256; ++value) shift[byte][value] = apply(map, value << (8 * byte));
  }
  return shift;
}
constexpr Shift kShift = make_shift();

uint32_t shifted(uint64_t state) {
  return kShift[0][state & 0xff] ^ kShift[1][state >> 8 & 0xff] ^ kShift[2][state >> 16 & 0xff] ^
         kShift[3][state >> 24 & 0xff];
}

uint64_t word_at(const std::byte* at) {
  uint64_t word = 0;
  std::memcpy(&word, at, sizeof(word));
  return word;
}

__attribute__((target("sse4.2"))) uint32_t crc32c_sse42(std::span<const std::byte> data, uint32_t crc) {
  uint64_t state = ~crc;
  while (data.size() >= 3 * kStream) {
    uint64_t second = 0;
    uint64_t third = 0;
    for (const std::byte* at = data.data(); at < data.data() + kStream; at += sizeof(uint64_t)) {
      state = _mm_crc32_u64(state, word_at(at));
      second = _mm_crc32_u64(second, word_at(at + kStream));
      third = _mm_crc32_u64(third, word_at(at + 2 * kStream));
    }
    state = shifted(shifted(state) ^ second) ^ third;
    data = data.subspan(3 * kStream);
  }
  while (data.size() >= sizeof(uint64_t)) {
    state = _mm_crc32_u64(state, word_at(data.data()));
    data = data.subspan(sizeof(uint64_t));
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
