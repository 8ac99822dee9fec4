// Where to look in a sorted table of u32 keys: the key space is cut into equal buckets, and for each bucket is known
// which entry is the last to start before it ends. With keys that lie evenly, a bucket holds 2 to 4 entries, so that a
// search is two reads of memory instead of log2(n); where they do not, the search within a bucket is binary, and never
// takes more steps than without an index. It costs 1 to 2 bytes an entry. Made once, then immutable.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/table_allocator.h"

namespace stasis::snapshot {

class BucketIndex {
 public:
  // Takes the keys of entries that follow each other. A copy of what it needs: what else the caller's loop writes
  // cannot be that, so that the compiler keeps it in registers.
  class Adder {
   public:
    void add(uint32_t key) { ends_[uint64_t{key} >> shift_] = entry_++; }

   private:
    friend class BucketIndex;
    Adder(uint32_t* ends, unsigned shift, size_t first)
        : ends_(ends), shift_(shift), entry_(static_cast<uint32_t>(first)) {}
    uint32_t* ends_;  // of each bucket
    unsigned shift_;
    uint32_t entry_;
  };

  // For `count` entries (fewer than 2^32) with keys below `limit` (at most 2^32). Then each is added in ascending
  // order, then finish().
  void start(size_t count, uint64_t limit) {
    const uint64_t most = std::max<uint64_t>(1, count / 2);
    shift_ = 0;
    while (((limit - 1) >> shift_) + 1 > most) ++shift_;
    bounds_.assign(((limit - 1) >> shift_) + 2, 0);
  }
  // For entry number `first` and those behind it.
  Adder adder(size_t first) { return {bounds_.data() + 1, shift_, first}; }
  void finish() {
    for (size_t i = 1; i < bounds_.size(); ++i) bounds_[i] = std::max(bounds_[i - 1], bounds_[i]);
  }

  // The last of `entries` whose `key` is at most `key`; the first one if there is none.
  template <typename Entry>
  size_t find(const Entry* entries, uint32_t Entry::*key_of, uint64_t key) const {
    return search(key, [&](size_t i) { return entries[i].*key_of; });
  }
  size_t find(const uint32_t* keys, uint64_t key) const {
    return search(key, [&](size_t i) { return keys[i]; });
  }

 private:
  static constexpr size_t kScan = 8;

  template <typename KeyAt>
  size_t search(uint64_t key, KeyAt key_at) const {
    const uint32_t* bounds = bounds_.data() + (key >> shift_);
    size_t first = bounds[0];
    size_t count = bounds[1] - first + 1;
    // Without branches on the keys: which half is taken cannot be predicted, and a wrong guess costs more than a step.
    while (count > kScan) {
      const size_t half = count / 2;
      first += key_at(first + half) <= key ? half : 0;
      count -= half;
    }
    // The last few are all looked at: their reads do not wait for each other.
    size_t not_after = 0;
    for (size_t i = 1; i < count; ++i) not_after += key_at(first + i) <= key ? 1 : 0;
    first += not_after;
    return first;
  }

  unsigned shift_ = 0;
  // [b]: the last entry that starts before bucket b, or 0. The last bucket's end is behind them.
  std::vector<uint32_t, TableAllocator<uint32_t>> bounds_;
};

}  // namespace stasis::snapshot
