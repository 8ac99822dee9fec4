// What a page server does, counted: faults by kind, cause and outcome, how long they took, pages by the way they came,
// bytes by layer, queues. One thread writes; any thread may read. Counting allocates nothing and takes no lock; on the
// path of a fault it reads the clock three times (25 ns each).
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "pager/arrival_trace.h"
#include "snapshot/block_map.h"

namespace stasis::pager {

enum class FaultKind : uint8_t { kRead, kWrite };
// Why the page was not there: it had never been, the guest had given it back, or it was there after all (another thread
// had faulted on it too, or it was given back a moment ago).
enum class FaultCause : uint8_t { kAbsent, kRemoved, kPresent };
// kWoken: nothing had to be installed any more. kFailed: the page could not be had, which ends the sandbox.
enum class FaultOutcome : uint8_t { kCopied, kZeroed, kWoken, kFailed };
inline constexpr size_t kFaultKinds = 2;
inline constexpr size_t kFaultCauses = 3;
inline constexpr size_t kFaultOutcomes = 4;
std::string_view name_of(FaultKind kind);
std::string_view name_of(FaultCause cause);
std::string_view name_of(FaultOutcome outcome);

// Bucket i holds what took less than 2^i microseconds, and no less than half of that; the last what took longer.
inline constexpr size_t kServiceBuckets = 22;
size_t service_bucket(std::chrono::nanoseconds time);

template <typename T>
using PerFault = std::array<std::array<std::array<T, kFaultOutcomes>, kFaultCauses>, kFaultKinds>;
template <typename T>
using PerArrival = std::array<std::array<T, 2>, kArrivals>;  // from a layer, zeros

struct ActivityStats {
  PerFault<uint64_t> faults{};                      // that were settled
  std::array<uint64_t, kServiceBuckets> service{};  // of those: from when they were read to the wake
  uint64_t service_ns = 0;                          // together
  PerArrival<uint64_t> pages{};                     // of 4 KiB
  struct Source {
    snapshot::LayerId layer;  // nil: zeros
    uint64_t bytes = 0;
  };
  std::vector<Source> sources;  // those that gave anything; zeros first
  uint64_t parked = 0;          // faults that wait, for a REMOVE event to be read or for their frame to be fetched
  uint64_t fetching = 0;        // frames that wait to be fetched or are being fetched
  uint64_t prefetch_left = 0;   // bytes that are still to be brought in ahead
  uint64_t load_left = 0;       // the same in the background
  uint64_t largest_batch = 0;   // most events that one read gave

  uint64_t pages_of(Arrival how, bool zeros) const { return pages[static_cast<size_t>(how)][zeros ? 1 : 0]; }
};

class Activity {
 public:
  using Clock = std::chrono::steady_clock;
  // `map` must outlive it.
  explicit Activity(const snapshot::BlockMap& map);

  // So many events were read at once. The time is when their faults begin to count.
  Clock::time_point batch(size_t events);
  // From now on it is this fault that is answered, until a page has come or it has failed. One that is parked instead
  // begins again later.
  void begin_fault(FaultKind kind, FaultCause cause, Clock::time_point since);
  void fault_failed() { settle(FaultOutcome::kFailed, Clock::now()); }
  // What comes from now on comes like this.
  void by(Arrival how) { how_ = how; }
  // Not empty, and installed.
  void came(Range range, bool zeros);
  void was_there() { settle(FaultOutcome::kWoken, Clock::now()); }
  // So many faults wait now; the one that was begun may be one of them.
  void set_parked(size_t faults) {
    current_.reset();
    parked_.store(faults, std::memory_order_relaxed);
  }
  void set_prefetch_left(uint64_t bytes) { prefetch_left_.store(bytes, std::memory_order_relaxed); }
  void set_load_left(uint64_t bytes) { load_left_.store(bytes, std::memory_order_relaxed); }

  ActivityStats stats() const;
  Timeline timeline() const { return trace_.read(); }

 private:
  using Counter = std::atomic<uint64_t>;
  struct Current {
    FaultKind kind;
    FaultCause cause;
    Clock::time_point since;
  };
  void settle(FaultOutcome outcome, Clock::time_point now);
  void count_sources(Range range);
  Counter& bytes_of(snapshot::LayerId layer);

  const snapshot::BlockMap& map_;
  Clock::time_point begun_ = Clock::now();
  Arrival how_ = Arrival::kFault;
  std::optional<Current> current_;
  PerFault<Counter> faults_{};
  std::array<Counter, kServiceBuckets> service_{};
  Counter service_ns_{0};
  PerArrival<Counter> pages_{};
  std::vector<snapshot::LayerId> layers_;  // sorted
  std::vector<Counter> layer_bytes_;       // of layers_, in that order
  Counter zero_bytes_{0};
  size_t last_layer_ = 0;  // in layers_: faults near each other mostly have it in common
  Counter parked_{0};
  Counter prefetch_left_{0};
  Counter load_left_{0};
  Counter largest_batch_{0};
  ArrivalTrace trace_;
};

}  // namespace stasis::pager
