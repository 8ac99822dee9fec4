// What the host's verification of everything has found, in the text format of Prometheus.
#pragma once

#include <string>

#include "server/host_agent.h"

namespace stasis::server {

std::string scrub_metrics_text(const pb::ScrubState& scrub);

}  // namespace stasis::server
