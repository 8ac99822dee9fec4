#include "guest/console.h"

#include <unistd.h>

#include <string>

namespace stasis::guest {

void log_line(std::string_view text) {
  std::string line = "stasis-guest: ";
  line.append(text).push_back('\n');
  (void)!write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace stasis::guest
