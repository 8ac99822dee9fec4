// CRC-32C (Castagnoli, as in iSCSI and ext4): guards the headers and tables of every durable format. Uses the
// processor's instruction where there is one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace stasis::snapshot {

// Continues from `crc`, the value of what came before (0 at the start).
uint32_t crc32c(std::span<const std::byte> data, uint32_t crc = 0);

// The same without the instruction: for other processors, and to be compared with in tests.
uint32_t crc32c_portable(std::span<const std::byte> data, uint32_t crc = 0);

}  // namespace stasis::snapshot
