// A restore's trace (an answer of GET /v1/sandboxes/{id}/trace) for people: tables, and a picture of time against guest
// address, coloured by how each page came. Forgiving about the answer, as everything that shows one.
#pragma once

#include <ostream>
#include <string>

#include "cli/client.h"

namespace stasis::cli {

void print_trace(std::ostream& out, const Json& trace);
std::string trace_svg(const Json& trace);

}  // namespace stasis::cli
