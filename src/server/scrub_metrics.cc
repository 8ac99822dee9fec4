#include "server/scrub_metrics.h"

#include "server/prometheus.h"

namespace stasis::server {

std::string scrub_metrics_text(const pb::ScrubState& scrub) {
  std::string out;
  const auto to = std::back_inserter(out);
  const auto seconds = [](int64_t unix_ms) { return static_cast<double>(unix_ms) / 1000; };
  metric_gauge(to, "stasis_scrub_damaged_files", "Files of the store that were found damaged (at most 1,000).",
               scrub.damaged_size());
  metric_gauge(to, "stasis_scrub_under_way", "Whether a pass over the whole store is under way.",
               scrub.under_way() ? 1 : 0);
  metric_gauge(to, "stasis_scrub_checked_bytes", "What the newest pass has checked.", scrub.checked_bytes());
  metric_gauge(to, "stasis_scrub_started_timestamp_seconds", "When the newest pass began; 0: there was none.",
               seconds(scrub.started_unix_ms()));
  metric_gauge(to, "stasis_scrub_finished_timestamp_seconds",
               "When the newest pass that came to its end ended; 0: none has.", seconds(scrub.finished_unix_ms()));
  return out;
}

}  // namespace stasis::server
