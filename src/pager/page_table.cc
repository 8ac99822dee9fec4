#include "pager/page_table.h"

#include <bit>

namespace stasis::pager {

void PageTable::append(std::vector<Range>& ranges, uint64_t word_index, uint64_t word) const {
  for (; word != 0; word &= word - 1) {
    const uint64_t page = word_index * 64 + static_cast<uint64_t>(std::countr_zero(word));
    append_range(ranges, {page * page_size_, page_size_});
  }
}

std::vector<Range> PageTable::given_back() const {
  std::vector<Range> ranges;
  for (size_t i = 0; i < given_back_.size(); ++i) append(ranges, i, given_back_[i].load(std::memory_order_relaxed));
  return ranges;
}

std::vector<Range> PageTable::take_given_back() {
  std::vector<Range> ranges;
  for (size_t i = 0; i < given_back_.size(); ++i) {
    // Looked at before it is exchanged: nearly every word is empty.
    if (given_back_[i].load(std::memory_order_relaxed) == 0) continue;
    append(ranges, i, given_back_[i].exchange(0, std::memory_order_relaxed));
  }
  return ranges;
}

}  // namespace stasis::pager
