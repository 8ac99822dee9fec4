// What the page server knows of each page: absent (never installed), present, or removed (given back by the guest;
// reads as zeros). Two bits a page: 1 MiB for a guest of 16 GiB. One thread writes; any thread may read.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "base/file_system.h"

namespace stasis::pager {

enum class PageState : uint8_t { kAbsent, kPresent, kRemoved };

class PageTable {
 public:
  PageTable(uint64_t memory_size, uint64_t page_size)
      : page_size_(page_size),
        pages_(memory_size / page_size),
        present_((pages_ + 63) / 64),
        removed_((pages_ + 63) / 64) {}

  uint64_t pages() const { return pages_; }
  PageState state(uint64_t page) const {
    const uint64_t bit = uint64_t{1} << (page % 64);
    if (present_[page / 64].load(std::memory_order_relaxed) & bit) return PageState::kPresent;
    return removed_[page / 64].load(std::memory_order_relaxed) & bit ? PageState::kRemoved : PageState::kAbsent;
  }
  void set(uint64_t page, PageState state) {
    assign(present_[page / 64], page % 64, state == PageState::kPresent);
    assign(removed_[page / 64], page % 64, state == PageState::kRemoved);
  }
  // Removed pages as byte ranges of guest memory, sorted and merged.
  std::vector<Range> removed_ranges() const;

 private:
  static void assign(std::atomic<uint64_t>& word, uint64_t bit, bool value) {
    const uint64_t mask = uint64_t{1} << bit;
    const uint64_t old = word.load(std::memory_order_relaxed);
    word.store(value ? old | mask : old & ~mask, std::memory_order_relaxed);
  }
  uint64_t page_size_;
  uint64_t pages_;
  std::vector<std::atomic<uint64_t>> present_;
  std::vector<std::atomic<uint64_t>> removed_;
};

}  // namespace stasis::pager
