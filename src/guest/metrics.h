// GET /metrics: {ts, cpu_count, cpu_used_pct, mem_total, mem_used, mem_cache, disk_used, disk_total}. The share of
// processor time is of the time since the previous call (since boot at the first).
#pragma once

#include <cstdint>
#include <mutex>
#include <nlohmann/json.hpp>

namespace stasis::guest {

class Metrics {
 public:
  nlohmann::json read();

 private:
  double cpu_used_percent();

  std::mutex mutex_;
  uint64_t busy_ = 0;
  uint64_t total_ = 0;
  double last_percent_ = 0;
};

}  // namespace stasis::guest
