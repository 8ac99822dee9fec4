// The text format of Prometheus, in pieces.
#pragma once

#include <fmt/format.h>

#include <iterator>
#include <string>

namespace stasis::server {

using MetricsOut = std::back_insert_iterator<std::string>;

inline void metric_head(MetricsOut to, const char* name, const char* type, const char* help) {
  fmt::format_to(to, "# HELP {0} {1}\n# TYPE {0} {2}\n", name, help, type);
}

template <typename Number>
void metric_gauge(MetricsOut to, const char* name, const char* help, Number value) {
  metric_head(to, name, "gauge", help);
  fmt::format_to(to, "{} {}\n", name, value);
}

template <typename Number>
void metric_counter(MetricsOut to, const char* name, const char* help, Number value) {
  metric_head(to, name, "counter", help);
  fmt::format_to(to, "{} {}\n", name, value);
}

}  // namespace stasis::server
