// What libzstd may be given of bytes from outside.
#pragma once

#include <cstddef>
#include <span>

namespace stasis::snapshot {

// Whether `packed` is one frame of today's zstd and nothing else. libzstd also reads the formats of before its 1.0,
// with decoders that nobody needs here and few have looked at, and goes on to them behind a frame of today's.
bool is_one_zstd_frame(std::span<const std::byte> packed);

}  // namespace stasis::snapshot
