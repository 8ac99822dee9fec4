#include "server/pager_metrics.h"

#include <fmt/format.h>

#include <iterator>

namespace stasis::server {
namespace {

using Out = std::back_insert_iterator<std::string>;

void head(Out to, const char* name, const char* type, const char* help) {
  fmt::format_to(to, "# HELP {0} {1}\n# TYPE {0} {2}\n", name, help, type);
}

void gauge(Out to, const char* name, const char* help, uint64_t value) {
  head(to, name, "gauge", help);
  fmt::format_to(to, "{} {}\n", name, value);
}

// Bucket i of the agent ends at 2^i microseconds; the last has no end.
void service_times(Out to, const pb::PagerMetrics& metrics) {
  head(to, "stasis_pager_fault_seconds", "histogram", "From when a page fault was read until its page was there.");
  uint64_t count = 0;
  for (int i = 0; i < metrics.service_buckets_size(); ++i) {
    count += metrics.service_buckets(i);
    const std::string end = i + 1 < metrics.service_buckets_size()
                                ? fmt::format("{:.6f}", static_cast<double>(uint64_t{1} << i) * 1e-6)
                                : "+Inf";
    fmt::format_to(to, "stasis_pager_fault_seconds_bucket{{le=\"{}\"}} {}\n", end, count);
  }
  fmt::format_to(to, "stasis_pager_fault_seconds_sum {:.9f}\n", static_cast<double>(metrics.service_ns()) * 1e-9);
  fmt::format_to(to, "stasis_pager_fault_seconds_count {}\n", count);
}

}  // namespace

std::string pager_metrics_text(const pb::PagerMetrics* metrics) {
  std::string out;
  const auto to = std::back_inserter(out);
  gauge(to, "stasis_host_agent_up", "Whether the host agent has answered.", metrics == nullptr ? 0 : 1);
  if (metrics == nullptr) return out;
  head(to, "stasis_pager_faults_total", "counter",
       "Page faults of guests, by what they wanted, why, and how they ended.");
  for (const pb::FaultCount& row : metrics->faults()) {
    fmt::format_to(to, "stasis_pager_faults_total{{kind=\"{}\",cause=\"{}\",outcome=\"{}\"}} {}\n", row.kind(),
                   row.cause(), row.outcome(), row.count());
  }
  if (metrics->service_buckets_size() > 0) service_times(to, *metrics);
  head(to, "stasis_pager_pages_total", "counter", "Pages of 4 KiB that came back, by the way they came.");
  for (const pb::PagesCame& row : metrics->pages()) {
    fmt::format_to(to, "stasis_pager_pages_total{{how=\"{}\",source=\"{}\"}} {}\n", row.how(),
                   row.zeros() ? "zeros" : "layers", row.pages());
  }
  head(to, "stasis_pager_bytes_total", "counter", "Bytes of guest memory that came back, by where from.");
  for (const pb::SourceBytes& row : metrics->sources()) {
    fmt::format_to(to, "stasis_pager_bytes_total{{source=\"{}\"}} {}\n", row.layer(), row.bytes());
  }
  gauge(to, "stasis_pager_parked_faults", "Page faults that wait, for another event to be read or for their frame.",
        metrics->parked());
  gauge(to, "stasis_pager_prefetch_left_bytes", "Bytes that are still to be brought in ahead.",
        metrics->prefetch_left_bytes());
  gauge(to, "stasis_pager_load_left_bytes", "Bytes that are still to be loaded in the background.",
        metrics->load_left_bytes());
  gauge(to, "stasis_pager_largest_batch", "Most events that one read of a userfaultfd gave.", metrics->largest_batch());
  return out;
}

}  // namespace stasis::server
