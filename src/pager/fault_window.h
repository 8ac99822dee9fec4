// How much comes in beside a faulting page. The window doubles when a fault continues what is there already, and halves
// after several in a row that do not, as a file's readahead does: a guest that reads through its memory takes few
// faults, and one that jumps about soon does not pay for neighbours that it never touches. Several in a row, because a
// Linux guest that wakes up jumps between a few places and reads on in each: halving at once cost it 1094 faults until
// its daemon answered, halving never 339 (and 16 pages for each). Not thread-safe.
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/file_system.h"

namespace stasis::pager {

class FaultWindow {
 public:
  static constexpr uint64_t kMaxPages = 64;
  // Of zeros, which cost a tenth of what copied pages do: with 64 a guest that reads on paid more for its faults.
  static constexpr uint64_t kMaxZeros = 512;
  static constexpr uint64_t kFirstPages = 16;  // one frame of a layer
  static constexpr uint32_t kPatience = 8;

  // The range to bring in, in pages, at most so many, for a fault on `page`; it holds `page`. `continues`: the page
  // before it is there.
  Range around(uint64_t page, bool continues, uint64_t most = kMaxPages) {
    pages_ = std::min(pages_, most);
    if (continues) {
      jumps_ = 0;
      pages_ = std::min(pages_ * 2, most);
      return {page, pages_};
    }
    if (++jumps_ == kPatience) {
      jumps_ = 0;
      pages_ = std::max<uint64_t>(pages_ / 2, 1);
    }
    return {page - page % pages_, pages_};
  }

 private:
  uint64_t pages_ = kFirstPages;
  uint32_t jumps_ = 0;  // since the last fault that continued something, or the last halving
};

}  // namespace stasis::pager
