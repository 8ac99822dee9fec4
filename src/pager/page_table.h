// What the page server knows of each page of a guest, and what follows from it for the next fault and the next capture.
//
//   absent   fault or prefetch: the snapshot's bytes, or zeros of a nil extent   clean, zero
//   any      REMOVE event                                                        removed
//   removed  fault: zeros                                                        zero
//
// A page that is clean or zero may have been written since: that the kernel knows (write-protection, dirty log), not
// this table. A page that faults though it is clean or zero went without an event that has been read yet, or with one
// that was read before our answer and took effect after it; zeros are right in every case, the snapshot's bytes would
// be stale. Beside the state, a mark tells which pages the guest has given back since the last capture took the marks:
// they read as zeros unless they have been written since, whatever has come into their place. page_table_test.cc
// compares all of this with a model, in every order of events.
//
// Three bits a page: 1.5 MiB for a guest of 16 GiB. One thread changes states; marks may be taken by any thread, and
// states read by any.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "base/file_system.h"

namespace stasis::pager {

enum class PageState : uint8_t {
  kAbsent,   // never installed: reads as the snapshot's bytes
  kClean,    // installed from the snapshot
  kZero,     // zeros were installed
  kRemoved,  // given back by the guest: reads as zeros
};

class PageTable {
 public:
  PageTable(uint64_t memory_size, uint64_t page_size)
      : page_size_(page_size),
        pages_(memory_size / page_size),
        installed_((pages_ + 63) / 64),
        zeroed_((pages_ + 63) / 64),
        given_back_((pages_ + 63) / 64) {}

  uint64_t pages() const { return pages_; }
  PageState state(uint64_t page) const {
    const bool zeroed = bit(zeroed_, page);
    if (bit(installed_, page)) return zeroed ? PageState::kZero : PageState::kClean;
    return zeroed ? PageState::kRemoved : PageState::kAbsent;
  }
  // What a fault on this page is answered with: the snapshot's bytes, or zeros.
  bool wants_snapshot(uint64_t page) const { return state(page) == PageState::kAbsent; }

  // The first page from `page` on, before `end`, of which this is true, and then the first of which it is not; or
  // `end`.
  uint64_t next_wanted(uint64_t page, uint64_t end) const { return next(page, end, true); }
  uint64_t end_of_wanted(uint64_t page, uint64_t end) const { return next(page, end, false); }

  bool is_installed(uint64_t page) const { return bit(installed_, page); }

  // The kernel has installed `count` pages, with the snapshot's bytes or with zeros (also the zeros of a nil extent).
  void installed(uint64_t first, uint64_t count, bool zeros);
  // The kernel says that it was there already.
  void found(uint64_t page) { assign(installed_, page, true); }
  void removed(uint64_t page) {
    given_back_[page / 64].fetch_or(mask_of(page), std::memory_order_relaxed);
    assign(installed_, page, false);
    assign(zeroed_, page, true);
  }

  // The marked pages as byte ranges of guest memory, sorted and merged. take_given_back() removes the marks it tells.
  std::vector<Range> given_back() const;
  std::vector<Range> take_given_back();

 private:
  using Bits = std::vector<std::atomic<uint64_t>>;
  static uint64_t mask_of(uint64_t page) { return uint64_t{1} << page % 64; }
  static uint64_t load(const Bits& bits, uint64_t word) { return bits[word].load(std::memory_order_relaxed); }
  static bool bit(const Bits& bits, uint64_t page) { return (load(bits, page / 64) & mask_of(page)) != 0; }
  static void assign(Bits& bits, uint64_t word, uint64_t mask, bool value) {  // one writer: no lock prefix
    const uint64_t old = load(bits, word);
    bits[word].store(value ? old | mask : old & ~mask, std::memory_order_relaxed);
  }
  static void assign(Bits& bits, uint64_t page, bool value) { assign(bits, page / 64, mask_of(page), value); }
  uint64_t next(uint64_t page, uint64_t end, bool wanted) const;
  void append(std::vector<Range>& ranges, uint64_t word_index, uint64_t word) const;

  uint64_t page_size_;
  uint64_t pages_;
  Bits installed_;
  Bits zeroed_;
  Bits given_back_;
};

}  // namespace stasis::pager
