// Big-endian numbers in bytes, as the journal of ext4 has them. Bounds are the caller's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace stasis::files {

inline uint32_t be16(std::span<const std::byte> bytes, size_t at) {
  return static_cast<uint32_t>(bytes[at]) << 8 | static_cast<uint32_t>(bytes[at + 1]);
}
inline uint32_t be32(std::span<const std::byte> bytes, size_t at) {
  return be16(bytes, at) << 16 | be16(bytes, at + 2);
}
inline uint64_t be64(std::span<const std::byte> bytes, size_t at) {
  return uint64_t{be32(bytes, at)} << 32 | be32(bytes, at + 4);
}

inline void put_be32(std::span<std::byte> bytes, size_t at, uint32_t value) {
  for (size_t i = 0; i < 4; ++i) bytes[at + i] = static_cast<std::byte>(value >> (24 - 8 * i));
}

}  // namespace stasis::files
