// Ranges of a file, an address space or a process's memory, in bytes.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace stasis {

// [offset, offset + length).
struct Range {
  uint64_t offset = 0;
  uint64_t length = 0;
  uint64_t end() const { return offset + length; }
  friend bool operator==(const Range&, const Range&) = default;
};

// Of all of them together.
inline uint64_t total_length(std::span<const Range> ranges) {
  uint64_t bytes = 0;
  for (const Range& range : ranges) bytes += range.length;
  return bytes;
}

// Adds a range behind the others, joined to the last one if it continues it.
inline void append_range(std::vector<Range>& ranges, Range range) {
  if (!ranges.empty() && ranges.back().end() == range.offset) {
    ranges.back().length += range.length;
  } else {
    ranges.push_back(range);
  }
}

}  // namespace stasis
