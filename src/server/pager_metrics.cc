#include "server/pager_metrics.h"

#include "server/prometheus.h"

namespace stasis::server {
namespace {

void spares(MetricsOut to, const pb::SpareCounts& counts) {
  metric_gauge(to, "stasis_spares", "VMMs that wait for a snapshot.", counts.ready());
  metric_counter(to, "stasis_spares_started_total", "VMMs started ahead of a restore.", counts.started());
  metric_counter(to, "stasis_spares_used_total", "Restores that took one.", counts.used());
  metric_counter(to, "stasis_spares_failed_total", "That did not start, died, or did not become a sandbox.",
                 counts.failed());
  metric_counter(to, "stasis_spares_dropped_total", "Ended for memory, for room, or because nobody asked.",
                 counts.dropped());
}

// Bucket i of the agent ends at 2^i microseconds; the last has no end.
void service_times(MetricsOut to, const pb::PagerMetrics& metrics) {
  metric_head(to, "stasis_pager_fault_seconds", "histogram",
              "From when a page fault was read until its page was there.");
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
  metric_gauge(to, "stasis_host_agent_up", "Whether the host agent has answered.", metrics == nullptr ? 0 : 1);
  if (metrics == nullptr) return out;
  metric_head(to, "stasis_pager_faults_total", "counter",
              "Page faults of guests, by what they wanted, why, and how they ended.");
  for (const pb::FaultCount& row : metrics->faults()) {
    fmt::format_to(to, "stasis_pager_faults_total{{kind=\"{}\",cause=\"{}\",outcome=\"{}\"}} {}\n", row.kind(),
                   row.cause(), row.outcome(), row.count());
  }
  if (metrics->service_buckets_size() > 0) service_times(to, *metrics);
  metric_head(to, "stasis_pager_pages_total", "counter", "Pages of 4 KiB that came back, by the way they came.");
  for (const pb::PagesCame& row : metrics->pages()) {
    fmt::format_to(to, "stasis_pager_pages_total{{how=\"{}\",source=\"{}\"}} {}\n", row.how(),
                   row.zeros() ? "zeros" : "layers", row.pages());
  }
  metric_head(to, "stasis_pager_bytes_total", "counter", "Bytes of guest memory that came back, by where from.");
  for (const pb::SourceBytes& row : metrics->sources()) {
    fmt::format_to(to, "stasis_pager_bytes_total{{source=\"{}\"}} {}\n", row.layer(), row.bytes());
  }
  metric_gauge(to, "stasis_pager_parked_faults",
               "Page faults that wait, for another event to be read or for their frame.", metrics->parked());
  metric_gauge(to, "stasis_pager_fetching_frames", "Frames of layers that wait to be fetched or are being fetched.",
               metrics->fetching_frames());
  metric_gauge(to, "stasis_pager_prefetch_left_bytes", "Bytes that are still to be brought in ahead.",
               metrics->prefetch_left_bytes());
  metric_gauge(to, "stasis_pager_load_left_bytes", "Bytes that are still to be loaded in the background.",
               metrics->load_left_bytes());
  metric_gauge(to, "stasis_pager_largest_batch", "Most events that one read of a userfaultfd gave.",
               metrics->largest_batch());
  spares(to, metrics->spares());
  return out;
}

}  // namespace stasis::server
