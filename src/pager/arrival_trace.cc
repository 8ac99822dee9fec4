#include "pager/arrival_trace.h"

#include <algorithm>
#include <array>

#include "snapshot/block_map.h"

namespace stasis::pager {
namespace {

// A block's number has 32 bits, because an address space has at most 2^32 of them; their count too.
constexpr uint32_t kZerosBit = 1U << 8;
constexpr std::array<std::string_view, kArrivals> kNames{"fault",      "around", "prefetch",
                                                         "background", "mapped", "copied"};

}  // namespace

std::string_view name_of(Arrival how) { return kNames[static_cast<size_t>(how)]; }

void ArrivalTrace::add(const ArrivalEvent& event) {
  const uint64_t index = count_.load(std::memory_order_relaxed);
  // Who reads what follows also sees that the event before this one is there, and so that this slot is being reused.
  std::atomic_thread_fence(std::memory_order_release);
  Slot& slot = slots_[slot_of(index)];
  slot.when_and_block.store(uint64_t{event.when_us} << 32 | event.range.offset / snapshot::kBlockSize,
                            std::memory_order_relaxed);
  slot.blocks_and_how.store(event.range.length / snapshot::kBlockSize << 32 | (event.zeros ? kZerosBit : 0) |
                                static_cast<uint64_t>(event.how),
                            std::memory_order_relaxed);
  count_.store(index + 1, std::memory_order_release);
}

ArrivalEvent ArrivalTrace::event_at(uint64_t index) const {
  const Slot& slot = slots_[slot_of(index)];
  const uint64_t first = slot.when_and_block.load(std::memory_order_relaxed);
  const uint64_t second = slot.blocks_and_how.load(std::memory_order_relaxed);
  return {static_cast<uint32_t>(first >> 32),
          {(first & UINT32_MAX) * snapshot::kBlockSize, (second >> 32) * snapshot::kBlockSize},
          static_cast<Arrival>(second & 0xff),
          (second & kZerosBit) != 0};
}

Timeline ArrivalTrace::read() const {
  const uint64_t count = count_.load(std::memory_order_acquire);
  Timeline timeline;
  for (uint64_t i = 0; i < std::min(count, kFirst); ++i) timeline.events.push_back(event_at(i));
  if (count <= kFirst) return timeline;
  const uint64_t oldest = std::max(kFirst, count - std::min(count, kLast));
  std::vector<ArrivalEvent> later;
  for (uint64_t i = oldest; i < count; ++i) later.push_back(event_at(i));
  // What was written over meanwhile, or is just being, is not what it was.
  std::atomic_thread_fence(std::memory_order_acquire);
  const uint64_t now = count_.load(std::memory_order_relaxed);
  const uint64_t valid = now < kFirst + kLast ? kFirst : now - kLast + 1;
  const uint64_t gone = std::min<uint64_t>(valid > oldest ? valid - oldest : 0, later.size());
  timeline.events.insert(timeline.events.end(), later.begin() + static_cast<long>(gone), later.end());
  timeline.left_out = count - timeline.events.size();
  return timeline;
}

}  // namespace stasis::pager
