// The timeline of a restore: which bytes of guest memory came when, and how. One thread writes, any thread may read at
// any time. Bounded: the first 8192 arrivals stay, because they are the restore; of what comes later the last 8192
// stay. Writing allocates nothing and takes no lock.
#pragma once

#include <atomic>
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/file_system.h"

namespace stasis::pager {

// How a page came: because it was touched, beside one that was, ahead of being touched, with the rest in the
// background, or with a mapped restore, which maps the layers and copies their short runs.
enum class Arrival : uint8_t { kFault, kAround, kPrefetch, kBackground, kMapped, kCopied };
inline constexpr size_t kArrivals = 6;
std::string_view name_of(Arrival how);

struct ArrivalEvent {
  uint32_t when_us = 0;  // since the memory was handed over; an hour and more: the largest number
  Range range;           // of guest memory, multiples of the block size
  Arrival how = Arrival::kFault;
  bool zeros = false;
  friend bool operator==(const ArrivalEvent&, const ArrivalEvent&) = default;
};

struct Timeline {
  std::vector<ArrivalEvent> events;  // in the order in which they came
  uint64_t left_out = 0;             // between the first and the last ones
};

class ArrivalTrace {
 public:
  static constexpr uint64_t kFirst = 8192;
  static constexpr uint64_t kLast = 8192;

  ArrivalTrace() : slots_(kFirst + kLast) {}
  void add(const ArrivalEvent& event);
  Timeline read() const;

 private:
  struct Slot {  // 16 bytes
    std::atomic<uint64_t> when_and_block{0};
    std::atomic<uint64_t> blocks_and_how{0};
  };
  static size_t slot_of(uint64_t index) { return index < kFirst ? index : kFirst + (index - kFirst) % kLast; }
  ArrivalEvent event_at(uint64_t index) const;

  std::vector<Slot> slots_;
  std::atomic<uint64_t> count_{0};  // of all that were added
};

}  // namespace stasis::pager
