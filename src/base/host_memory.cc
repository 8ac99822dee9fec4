#include "base/host_memory.h"

#include <fstream>
#include <iterator>
#include <sstream>

namespace stasis {
namespace {

std::string content_of(const char* path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

// Bytes of a line "MemTotal:       24683548 kB"; 0 if it is not there.
uint64_t bytes_of(const std::string& meminfo, const std::string& name) {
  std::istringstream lines(meminfo);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string first;
    uint64_t kib = 0;
    if (words >> first >> kib && first == name) return kib << 10;
  }
  return 0;
}

// Of "some avg10=1.25 avg60=...", the first line.
double stalled_percent(const std::string& pressure) {
  constexpr std::string_view kBefore = "some avg10=";
  double percent = 0;
  if (pressure.starts_with(kBefore)) std::istringstream(pressure.substr(kBefore.size())) >> percent;
  return percent;
}

}  // namespace

Result<HostMemory> parse_host_memory(const std::string& meminfo, const std::string& pressure) {
  const HostMemory memory{bytes_of(meminfo, "MemTotal:"), bytes_of(meminfo, "MemAvailable:"),
                          stalled_percent(pressure)};
  if (memory.total_bytes == 0) return fail(Code::kUnavailable, "/proc/meminfo does not tell how much memory there is");
  return memory;
}

Result<HostMemory> host_memory() {
  return parse_host_memory(content_of("/proc/meminfo"), content_of("/proc/pressure/memory"));
}

}  // namespace stasis
