// How entries of a block map are put together: in order, neighbours that continue each other merged.
#pragma once

#include <vector>

#include "snapshot/block_map.h"

namespace stasis::snapshot {

struct BlockMap::Builder {
  // True if `next`, which starts where `previous` ends, is its continuation in the layer too.
  static bool continues(const Entry& previous, const Entry& next) {
    if (previous.layer != next.layer) return false;
    const uint64_t length = next.first_block - previous.first_block;
    return next.layer == 0 || previous.layer_block + length == next.layer_block;
  }

  void append(const Entry& entry) {
    if (!entries.empty() && continues(entries.back(), entry)) return;
    entries.push_back(entry);
  }

  Entries entries;
};

// A size that an address space may have.
inline bool valid_size(uint64_t size) { return size > 0 && size <= kMaxAddressSpace && size % kBlockSize == 0; }

}  // namespace stasis::snapshot
