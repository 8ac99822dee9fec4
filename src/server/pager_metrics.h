// What the host's page servers have done, in the text format of Prometheus: for the host as a whole, so that the number
// of series does not grow with its sandboxes.
#pragma once

#include <string>

#include "server/host_agent.h"

namespace stasis::server {

// nullptr: the agent does not answer.
std::string pager_metrics_text(const pb::PagerMetrics* metrics);

}  // namespace stasis::server
