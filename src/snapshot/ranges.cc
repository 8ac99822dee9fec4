#include "snapshot/ranges.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace stasis::snapshot {

Status check_ranges(std::span<const Range> ranges, uint64_t size, std::string_view what) {
  uint64_t position = 0;
  for (const Range& range : ranges) {
    if (range.offset < position || range.length == 0 || range.offset % kBlockSize != 0 ||
        range.length % kBlockSize != 0 || range.offset > size || range.length > size - range.offset) {
      return fail(Code::kInvalidArgument, "the " + std::string(what) + " range of " + std::to_string(range.length) +
                                              " bytes at " + std::to_string(range.offset) +
                                              " is empty, not of whole blocks, out of order or behind the end at " +
                                              std::to_string(size));
    }
    position = range.end();
  }
  return {};
}

std::vector<Range> subtract(std::span<const Range> from, std::span<const Range> without) {
  std::vector<Range> result;
  size_t next = 0;
  for (const Range& range : from) {
    uint64_t position = range.offset;
    while (next < without.size() && without[next].end() <= position) ++next;
    for (size_t i = next; i < without.size() && without[i].offset < range.end(); ++i) {
      if (without[i].offset > position) result.push_back({position, without[i].offset - position});
      position = std::max(position, without[i].end());
    }
    if (position < range.end()) result.push_back({position, range.end() - position});
  }
  return result;
}

std::vector<Range> unite(std::span<const Range> a, std::span<const Range> b) {
  std::vector<Range> both;
  both.reserve(a.size() + b.size());
  std::merge(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(both),
             [](const Range& x, const Range& y) { return x.offset < y.offset; });
  std::vector<Range> united;
  for (const Range& range : both) {
    if (!united.empty() && range.offset <= united.back().end()) {
      united.back().length = std::max(united.back().end(), range.end()) - united.back().offset;
    } else {
      united.push_back(range);
    }
  }
  return united;
}

std::vector<Range> intersect(std::span<const Range> a, std::span<const Range> b) {
  std::vector<Range> common;
  size_t i = 0;
  size_t j = 0;
  while (i < a.size() && j < b.size()) {
    const uint64_t start = std::max(a[i].offset, b[j].offset);
    const uint64_t end = std::min(a[i].end(), b[j].end());
    if (start < end) common.push_back({start, end - start});
    (a[i].end() < b[j].end() ? i : j) += 1;
  }
  return common;
}

Status in_chunks(std::span<const Range> ranges, uint64_t size,
                 const std::function<Status(std::span<const Range>)>& each) {
  std::vector<Range> pieces;
  uint64_t bytes = 0;
  for (Range rest : ranges) {
    while (rest.length > 0) {
      const Range piece{rest.offset, std::min(rest.length, size - rest.offset % size)};
      if (bytes + piece.length > size) {
        STASIS_TRY(each(pieces));
        pieces.clear();
        bytes = 0;
      }
      pieces.push_back(piece);
      bytes += piece.length;
      rest = {piece.end(), rest.length - piece.length};
    }
  }
  return pieces.empty() ? Status{} : each(pieces);
}

bool is_zero(std::span<const std::byte> bytes) {
  alignas(64) static constexpr std::array<std::byte, kBlockSize> kZeros{};
  return std::memcmp(bytes.data(), kZeros.data(), bytes.size()) == 0;
}

void append_change(std::vector<Change>& changes, Range range, bool zero) {
  if (!changes.empty() && changes.back().zero == zero && changes.back().range.end() == range.offset) {
    changes.back().range.length += range.length;
  } else {
    changes.push_back({range, zero});
  }
}

}  // namespace stasis::snapshot
