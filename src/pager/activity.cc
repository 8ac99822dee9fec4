#include "pager/activity.h"

#include <algorithm>
#include <bit>
#include <limits>

namespace stasis::pager {
namespace {

using snapshot::kBlockSize;
using snapshot::LayerId;

constexpr std::array<std::string_view, kFaultKinds> kKinds{"read", "write"};
constexpr std::array<std::string_view, kFaultCauses> kCauses{"absent", "removed", "present"};
constexpr std::array<std::string_view, kFaultOutcomes> kOutcomes{"copied", "zeroed", "woken", "failed"};

uint64_t get(const std::atomic<uint64_t>& counter) { return counter.load(std::memory_order_relaxed); }

// One writer: no lock prefix.
void add(std::atomic<uint64_t>& counter, uint64_t n) { counter.store(get(counter) + n, std::memory_order_relaxed); }

}  // namespace

std::string_view name_of(FaultKind kind) { return kKinds[static_cast<size_t>(kind)]; }
std::string_view name_of(FaultCause cause) { return kCauses[static_cast<size_t>(cause)]; }
std::string_view name_of(FaultOutcome outcome) { return kOutcomes[static_cast<size_t>(outcome)]; }

size_t service_bucket(std::chrono::nanoseconds time) {
  const auto us = static_cast<uint64_t>(std::max<int64_t>(time.count(), 0)) / 1000;
  return std::min<size_t>(static_cast<size_t>(std::bit_width(us)), kServiceBuckets - 1);
}

Activity::Activity(const snapshot::BlockMap& map)
    : map_(map), layers_(map.layers().begin(), map.layers().end()), layer_bytes_(layers_.size()) {
  std::ranges::sort(layers_);
}

Activity::Clock::time_point Activity::batch(size_t events) {
  if (events > get(largest_batch_)) largest_batch_.store(events, std::memory_order_relaxed);
  return Clock::now();
}

void Activity::begin_fault(FaultKind kind, FaultCause cause, Clock::time_point since) {
  how_ = Arrival::kFault;
  current_ = Current{kind, cause, since};
}

void Activity::settle(FaultOutcome outcome, Clock::time_point now) {
  if (!current_) return;
  const auto kind = static_cast<size_t>(current_->kind);
  const auto cause = static_cast<size_t>(current_->cause);
  add(faults_[kind][cause][static_cast<size_t>(outcome)], 1);
  const std::chrono::nanoseconds time = now - current_->since;
  add(service_[service_bucket(time)], 1);
  add(service_ns_, static_cast<uint64_t>(time.count()));
  current_.reset();
}

void Activity::came(Range range, bool zeros) {
  const auto now = Clock::now();
  settle(zeros ? FaultOutcome::kZeroed : FaultOutcome::kCopied, now);
  add(pages_[static_cast<size_t>(how_)][zeros ? 1 : 0], range.length / kBlockSize);
  if (zeros) {
    add(zero_bytes_, range.length);
  } else {
    count_sources(range);
  }
  const auto us = std::chrono::duration_cast<std::chrono::microseconds>(now - begun_).count();
  const auto when = static_cast<uint32_t>(std::min<int64_t>(us, std::numeric_limits<uint32_t>::max()));
  trace_.add({when, range, how_, zeros});
}

// Nearly always one extent; a huge page may hold several.
void Activity::count_sources(Range range) {
  for (uint64_t at = range.offset; at < range.end();) {
    const snapshot::Extent extent = map_.find(at);
    const uint64_t end = std::min(extent.end(), range.end());
    add(extent.is_zero() ? zero_bytes_ : bytes_of(extent.layer), end - at);
    at = end;
  }
}

Activity::Counter& Activity::bytes_of(LayerId layer) {
  if (layers_[last_layer_] != layer) {
    last_layer_ = static_cast<size_t>(std::ranges::lower_bound(layers_, layer) - layers_.begin());
  }
  return layer_bytes_[last_layer_];
}

ActivityStats Activity::stats() const {
  ActivityStats stats;
  for (size_t kind = 0; kind < kFaultKinds; ++kind) {
    for (size_t cause = 0; cause < kFaultCauses; ++cause) {
      std::ranges::transform(faults_[kind][cause], stats.faults[kind][cause].begin(), get);
    }
  }
  std::ranges::transform(service_, stats.service.begin(), get);
  stats.service_ns = get(service_ns_);
  for (size_t how = 0; how < kArrivals; ++how) std::ranges::transform(pages_[how], stats.pages[how].begin(), get);
  if (const uint64_t zeros = get(zero_bytes_); zeros > 0) stats.sources.push_back({LayerId{}, zeros});
  for (size_t i = 0; i < layers_.size(); ++i) {
    if (const uint64_t bytes = get(layer_bytes_[i]); bytes > 0) stats.sources.push_back({layers_[i], bytes});
  }
  stats.parked = get(parked_);
  stats.prefetch_left = get(prefetch_left_);
  stats.load_left = get(load_left_);
  stats.largest_batch = get(largest_batch_);
  return stats;
}

}  // namespace stasis::pager
