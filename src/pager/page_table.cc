#include "pager/page_table.h"

namespace stasis::pager {

std::vector<Range> PageTable::removed_ranges() const {
  std::vector<Range> ranges;
  for (uint64_t page = 0; page < pages_; ++page) {
    if (page % 64 == 0 && removed_[page / 64].load(std::memory_order_relaxed) == 0) {
      page += 63;
      continue;
    }
    if (state(page) != PageState::kRemoved) continue;
    const uint64_t offset = page * page_size_;
    if (!ranges.empty() && ranges.back().end() == offset) {
      ranges.back().length += page_size_;
    } else {
      ranges.push_back({offset, page_size_});
    }
  }
  return ranges;
}

}  // namespace stasis::pager
