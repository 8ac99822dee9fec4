// What comes in without being asked for, in large pieces and in a given order: which ranges of guest memory are left,
// and whether the next of them can be had now. Not thread-safe.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "base/range.h"
#include "pager/arrival_trace.h"
#include "snapshot/fetch_queue.h"

namespace stasis::pager {

// Installed at once: a demand fault that comes meanwhile waits for it, some 60 us.
inline constexpr uint64_t kBulkPiece = uint64_t{256} << 10;

class BulkLoad {
 public:
  BulkLoad(Arrival how, snapshot::FetchUrgency urgency) : how_(how), urgency_(urgency) {}

  Arrival how() const { return how_; }
  snapshot::FetchUrgency urgency() const { return urgency_; }

  // Ranges of guest memory, multiples of the block size, in the order in which they are to come.
  void expect(std::vector<Range> ranges) {
    ranges_ = std::move(ranges);
    next_ = 0;
    left_ = total_length(ranges_);
  }
  void end() { expect({}); }
  bool is_empty() const { return next_ == ranges_.size(); }
  bool is_ready() const { return !fetching_ && !is_empty(); }
  uint64_t left() const { return left_; }  // bytes
  std::span<const Range> rest() const { return std::span(ranges_).subspan(next_); }

  Range piece(uint64_t most) const { return {ranges_[next_].offset, std::min(ranges_[next_].length, most)}; }
  // So much of the piece has come.
  void advance(uint64_t bytes) {
    Range& range = ranges_[next_];
    range.offset += bytes;
    range.length -= bytes;
    left_ -= bytes;
    if (range.length == 0) ++next_;
  }

  // The next piece has frames that are not here; some of what was asked for has come.
  void await_frames() { fetching_ = true; }
  void frames_came() { fetching_ = false; }

 private:
  Arrival how_;
  snapshot::FetchUrgency urgency_;
  std::vector<Range> ranges_;
  size_t next_ = 0;
  uint64_t left_ = 0;
  bool fetching_ = false;
};

}  // namespace stasis::pager
