#include "server/metrics.h"

#include <fmt/format.h>

#include <iterator>

namespace stasis::server {
namespace {

// Methods come from outside: only those that have a meaning become labels.
std::string method_label(const std::string& method) {
  return method == "GET" || method == "POST" || method == "DELETE" ? method : "other";
}

}  // namespace

void Metrics::observe(const std::string& method, const std::string& route, unsigned status, double seconds) {
  const std::lock_guard lock(mutex_);
  ++requests_[{method_label(method), route, status}];
  Durations& durations = durations_[{method_label(method), route}];
  for (size_t i = 0; i < kBounds.size(); ++i) {
    if (seconds <= kBounds[i]) ++durations.buckets[i];
  }
  ++durations.count;
  durations.sum += seconds;
}

std::string Metrics::text(const std::map<State, int64_t>& sandboxes) const {
  std::string out =
      "# HELP stasis_sandboxes Sandboxes in the database by state.\n"
      "# TYPE stasis_sandboxes gauge\n";
  auto to = std::back_inserter(out);
  for (int i = 0; i <= static_cast<int>(State::kError); ++i) {
    const auto state = static_cast<State>(i);
    const auto found = sandboxes.find(state);
    fmt::format_to(to, "stasis_sandboxes{{state=\"{}\"}} {}\n", state_name(state),
                   found == sandboxes.end() ? 0 : found->second);
  }
  const std::lock_guard lock(mutex_);
  out +=
      "# HELP stasis_http_requests_total Requests answered.\n"
      "# TYPE stasis_http_requests_total counter\n";
  for (const auto& [key, count] : requests_) {
    fmt::format_to(to, "stasis_http_requests_total{{method=\"{}\",route=\"{}\",status=\"{}\"}} {}\n", std::get<0>(key),
                   std::get<1>(key), std::get<2>(key), count);
  }
  out +=
      "# HELP stasis_http_request_seconds How long requests took.\n"
      "# TYPE stasis_http_request_seconds histogram\n";
  for (const auto& [key, durations] : durations_) {
    const std::string labels = fmt::format("method=\"{}\",route=\"{}\"", key.first, key.second);
    for (size_t i = 0; i < kBounds.size(); ++i) {
      fmt::format_to(to, "stasis_http_request_seconds_bucket{{{},le=\"{}\"}} {}\n", labels, kBounds[i],
                     durations.buckets[i]);
    }
    fmt::format_to(to, "stasis_http_request_seconds_bucket{{{},le=\"+Inf\"}} {}\n", labels, durations.count);
    fmt::format_to(to, "stasis_http_request_seconds_sum{{{}}} {:.6f}\n", labels, durations.sum);
    fmt::format_to(to, "stasis_http_request_seconds_count{{{}}} {}\n", labels, durations.count);
  }
  return out;
}

}  // namespace stasis::server
