#include "base/clock.h"

#include <time.h>

#include <array>
#include <cstdio>

namespace stasis {

int64_t unix_time_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  return now.tv_sec * 1'000'000'000LL + now.tv_nsec;
}

std::string rfc3339(int64_t unix_ns) {
  int64_t seconds = unix_ns / 1'000'000'000;
  int64_t nanoseconds = unix_ns % 1'000'000'000;
  if (nanoseconds < 0) {
    nanoseconds += 1'000'000'000;
    --seconds;
  }
  const time_t when = seconds;
  tm parts{};
  ::gmtime_r(&when, &parts);
  std::array<char, 64> text{};
  const size_t n = ::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%S", &parts);
  std::snprintf(text.data() + n, text.size() - n, ".%09lldZ", static_cast<long long>(nanoseconds));
  return text.data();
}

}  // namespace stasis
