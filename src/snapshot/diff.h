// What differs between two address spaces, block by block. Where both block maps point to the same bytes of the same
// layer, or both say zeros, nothing is read: the cost is that of what is stored apart. Of different sizes, the rest of
// the longer one is held against zeros. Blocks of different layers that hold the same bytes are equal.
#pragma once

#include <functional>
#include <vector>

#include "snapshot/layer.h"

namespace stasis::snapshot {

struct SpaceDiff {
  uint64_t same_source_bytes = 0;  // known to be equal without reading
  uint64_t compared_bytes = 0;     // read, at least on one side
  uint64_t changed_bytes = 0;
  uint64_t became_zero_bytes = 0;  // of those, zeros in `b`
  uint64_t became_data_bytes = 0;  // of those, zeros in `a`
  uint64_t runs = 0;               // of changed blocks
  std::vector<Range> changed;      // the first kMaxRanges runs
};

inline constexpr size_t kMaxRanges = 4096;

// How far, at most `length` bytes (within both maps), two places of two address spaces go on in one extent each, and
// whether both then take the same bytes of the same layer, or are zeros: equal without reading.
struct SourceRun {
  uint64_t length = 0;
  bool same = false;
};
SourceRun source_run(const BlockMap& a, uint64_t at_a, const BlockMap& b, uint64_t at_b, uint64_t length);

// `go_on` is asked after each megabyte read; false: kCancelled. kDataLoss of a damaged frame is an error.
Result<SpaceDiff> diff(const AddressSpace& a, const AddressSpace& b, const std::function<bool()>& go_on);

}  // namespace stasis::snapshot
