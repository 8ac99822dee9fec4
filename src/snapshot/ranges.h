// Lists of ranges: sorted, disjoint, of whole blocks. And the test for zeros.
#pragma once

#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "snapshot/block_map.h"

namespace stasis::snapshot {

// kInvalidArgument, naming `what`, unless the ranges are sorted, disjoint, not empty, of whole blocks, and within
// `size`.
Status check_ranges(std::span<const Range> ranges, uint64_t size, std::string_view what);

// What of `from` is not in `without`.
std::vector<Range> subtract(std::span<const Range> from, std::span<const Range> without);

// What is in either.
std::vector<Range> unite(std::span<const Range> a, std::span<const Range> b);

// What is in both.
std::vector<Range> intersect(std::span<const Range> a, std::span<const Range> b);

// Calls `each` for pieces of the ranges, in order, as many at once as are `size` bytes together: so that what lies
// scattered is read with few calls. A piece ends at a multiple of `size` at the latest.
Status in_chunks(std::span<const Range> ranges, uint64_t size,
                 const std::function<Status(std::span<const Range>)>& each);

// True if `bytes`, at most kBlockSize of them, are all zero.
bool is_zero(std::span<const std::byte> bytes);

// Adds a change behind the others, joined to the last one if it continues it.
void append_change(std::vector<Change>& changes, Range range, bool zero);

}  // namespace stasis::snapshot
