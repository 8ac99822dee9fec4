// What a supervisor tells of its page server, or of a mapping, and what an agent adds up for its host. Words, not the
// pager's own types: the agent links only the protocol. What a word stands for is in pager/activity.h.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/result.h"

namespace stasis::supervisor {

struct PagerReport {
  struct Faults {
    std::string kind;     // "read", "write"
    std::string cause;    // "absent", "removed", "present"
    std::string outcome;  // "copied", "zeroed", "woken", "failed"
    uint64_t count = 0;
    friend bool operator==(const Faults&, const Faults&) = default;
  };
  struct Pages {
    std::string how;  // "fault", "around", "prefetch", "mapped", "copied"
    bool zeros = false;
    uint64_t pages = 0;  // of 4 KiB
    friend bool operator==(const Pages&, const Pages&) = default;
  };
  struct Source {
    std::string layer;  // a layer's id, kAnyLayer, or kZeros
    uint64_t bytes = 0;
    friend bool operator==(const Source&, const Source&) = default;
  };
  static constexpr const char* kZeros = "zeros";
  static constexpr const char* kAnyLayer = "layers";

  std::vector<Faults> faults;     // none that did not happen; so everywhere
  std::vector<uint64_t> service;  // bucket i: faults that took less than 2^i us; the last: longer
  uint64_t service_ns = 0;        // of all faults together
  std::vector<Pages> pages;
  std::vector<Source> sources;
  uint64_t parked = 0;         // faults that wait
  uint64_t prefetch_left = 0;  // bytes
  uint64_t load_left = 0;      // bytes, in the background
  uint64_t largest_batch = 0;  // events
  uint64_t fetching = 0;       // frames that wait to be fetched or are being fetched
  friend bool operator==(const PagerReport&, const PagerReport&) = default;
};

// Adds what `more` has counted, and lets its queues stand beside those of `sum`. With `layers_apart` false all layers
// are counted as one, so that the sum of many sandboxes stays small.
void add_to(PagerReport& sum, const PagerReport& more, bool layers_apart);
// Half (part = 0.5) of the faults took less than this; 0 without faults.
uint64_t service_quantile_us(const std::vector<uint64_t>& service, double part);

inline constexpr const char* kLoading = "loading";
inline constexpr const char* kLoadComplete = "complete";
inline constexpr const char* kLoadEnded = "ended";

// A restore's timeline.
struct TraceReply {
  struct Event {
    uint32_t when_us = 0;  // since the memory was handed over
    uint64_t offset = 0;   // in guest memory, bytes
    uint64_t length = 0;
    std::string how;
    bool zeros = false;
    friend bool operator==(const Event&, const Event&) = default;
  };
  std::string method;  // "uffd", "mapped", "partly"; empty after a boot, and then there is nothing in it
  std::string reason;
  uint64_t total_pages = 0;
  PagerReport report;
  std::vector<Event> events;  // at most 16,384, in the order in which they came
  uint64_t left_out = 0;      // that were more
  // Background loading: kLoading, kLoadComplete, kLoadEnded; empty: was not asked for.
  std::string load = {};
  std::string load_error = {};  // why it ended
  bool spare = false;           // restored by a spare that was started ahead
};

// Rows are arrays: [kind, cause, outcome, count] and so on, as the fields stand above.
nlohmann::json to_json(const PagerReport& report);
nlohmann::json to_json(const TraceReply& reply);
// kInvalidArgument for what to_json() does not make.
Result<PagerReport> report_from_json(const nlohmann::json& json);
Result<TraceReply> trace_from_json(const nlohmann::json& json);

}  // namespace stasis::supervisor
