// Which of many things have been seen within these ten seconds: a bit for each, and all of them are cleared when the
// next ten begin. For what is true for a while and costs a system call to find out. Any thread; where two of them meet,
// a bit may be lost, or stay for ten seconds more.
#pragma once

#include <time.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/sync_point.h"

namespace stasis::snapshot {

class SeenLately {
 public:
  explicit SeenLately(size_t count) : words_((count + 63) / 64) {}

  void set(size_t index) {
    begin_period();
    words_[index / 64].fetch_or(bit(index), std::memory_order_relaxed);
  }
  bool has(size_t index) {
    begin_period();
    return (words_[index / 64].load(std::memory_order_relaxed) & bit(index)) != 0;
  }

 private:
  static constexpr int64_t kPeriodSeconds = 10;

  static uint64_t bit(size_t index) { return uint64_t{1} << (index % 64); }
  static int64_t now() {
    timespec time{};
    ::clock_gettime(CLOCK_MONOTONIC_COARSE, &time);  // 5 ns
    int64_t second = time.tv_sec;
    sync_point("seen_lately.now", &second);
    return second;
  }
  void begin_period() {
    int64_t before = period_.load(std::memory_order_relaxed);
    const int64_t period = now() / kPeriodSeconds;
    if (period == before || !period_.compare_exchange_strong(before, period, std::memory_order_relaxed)) return;
    for (std::atomic<uint64_t>& word : words_) word.store(0, std::memory_order_relaxed);
  }

  std::atomic<int64_t> period_{now() / kPeriodSeconds};
  std::vector<std::atomic<uint64_t>> words_;
};

}  // namespace stasis::snapshot
