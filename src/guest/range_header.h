// "Range: bytes=..." of one range, applied to a file of a known size.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace stasis::guest {

struct ByteRange {
  uint64_t offset = 0;
  uint64_t length = 0;
};

enum class RangeKind { kWhole, kPart, kUnsatisfiable };

struct RangeAnswer {
  RangeKind kind = RangeKind::kWhole;
  ByteRange range;
};

// Headers of another form, or of several ranges, are ignored as HTTP allows: the whole file.
RangeAnswer apply_range(std::string_view header, uint64_t size);

}  // namespace stasis::guest
