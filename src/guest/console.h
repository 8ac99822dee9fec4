// Lines for the console (the VMM's serial log): "stasis-guest: <text>". Written with one write(2) each, from any
// thread.
#pragma once

#include <string_view>

namespace stasis::guest {

void log_line(std::string_view text);

}  // namespace stasis::guest
