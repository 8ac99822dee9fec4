// Counters of requests in the text format of Prometheus. Thread-safe.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <tuple>

#include "server/state_machine.h"

namespace stasis::server {

class Metrics {
 public:
  void observe(const std::string& method, const std::string& route, unsigned status, double seconds);
  std::string text(const std::map<State, int64_t>& sandboxes) const;

 private:
  static constexpr std::array<double, 7> kBounds = {0.01, 0.05, 0.25, 1, 5, 25, 120};
  struct Durations {
    std::array<uint64_t, kBounds.size()> buckets{};
    uint64_t count = 0;
    double sum = 0;
  };

  mutable std::mutex mutex_;
  std::map<std::tuple<std::string, std::string, unsigned>, uint64_t> requests_;
  std::map<std::pair<std::string, std::string>, Durations> durations_;
};

}  // namespace stasis::server
