#include "pager/page_table.h"

#include <algorithm>
#include <bit>

namespace stasis::pager {

void PageTable::installed(uint64_t first, uint64_t count, bool zeros) {
  for (uint64_t page = first; page < first + count;) {
    const uint64_t here = std::min(first + count - page, 64 - page % 64);
    const uint64_t mask = (here == 64 ? ~uint64_t{0} : (uint64_t{1} << here) - 1) << page % 64;
    assign(installed_, page / 64, mask, true);
    assign(zeroed_, page / 64, mask, zeros);
    page += here;
  }
}

uint64_t PageTable::next(uint64_t page, uint64_t end, bool wanted) const {
  while (page < end) {
    const uint64_t known = load(installed_, page / 64) | load(zeroed_, page / 64);
    const uint64_t found = (wanted ? ~known : known) >> page % 64;
    if (found != 0) return std::min(end, page + static_cast<uint64_t>(std::countr_zero(found)));
    page += 64 - page % 64;
  }
  return end;
}

void PageTable::append(std::vector<Range>& ranges, uint64_t word_index, uint64_t word) const {
  for (; word != 0; word &= word - 1) {
    const uint64_t page = word_index * 64 + static_cast<uint64_t>(std::countr_zero(word));
    append_range(ranges, {page * page_size_, page_size_});
  }
}

std::vector<Range> PageTable::given_back() const {
  std::vector<Range> ranges;
  for (size_t i = 0; i < given_back_.size(); ++i) append(ranges, i, load(given_back_, i));
  return ranges;
}

std::vector<Range> PageTable::take_given_back() {
  std::vector<Range> ranges;
  for (size_t i = 0; i < given_back_.size(); ++i) {
    // Looked at before it is exchanged: nearly every word is empty.
    if (load(given_back_, i) == 0) continue;
    append(ranges, i, given_back_[i].exchange(0, std::memory_order_relaxed));
  }
  return ranges;
}

}  // namespace stasis::pager
