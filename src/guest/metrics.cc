#include "guest/metrics.h"

#include <sys/statvfs.h>
#include <unistd.h>

#include <cmath>
#include <ctime>
#include <sstream>

#include "guest/small_files.h"

namespace stasis::guest {
namespace {

constexpr size_t kMaxProcFile = size_t{1} << 20;

// Bytes of a line "Name:   123 kB" of /proc/meminfo; 0 if it is not there.
uint64_t memory_field(const std::string& text, std::string_view name) {
  std::istringstream lines(text);
  std::string key;
  uint64_t kilobytes = 0;
  std::string unit;
  while (lines >> key >> kilobytes) {
    std::getline(lines, unit);
    if (key == name) return kilobytes << 10;
  }
  return 0;
}

}  // namespace

double Metrics::cpu_used_percent() {
  std::istringstream line(read_small_file("/proc/stat", kMaxProcFile).value_or(""));
  std::string name;
  line >> name;
  uint64_t total = 0;
  uint64_t idle = 0;
  uint64_t value = 0;
  for (int field = 0; field < 8 && line >> value; ++field) {
    total += value;
    if (field == 3 || field == 4) idle += value;  // idle, iowait
  }
  uint64_t busy = total - idle;
  if (total > total_) {
    last_percent_ = 100.0 * static_cast<double>(busy - std::min(busy, busy_)) / static_cast<double>(total - total_);
  }
  busy_ = busy;
  total_ = total;
  return std::round(last_percent_ * 100) / 100;
}

nlohmann::json Metrics::read() {
  std::lock_guard lock(mutex_);
  std::string memory = read_small_file("/proc/meminfo", kMaxProcFile).value_or("");
  uint64_t total = memory_field(memory, "MemTotal:");
  uint64_t available = memory_field(memory, "MemAvailable:");
  struct statvfs disk {};
  (void)statvfs("/", &disk);
  uint64_t disk_total = uint64_t{disk.f_blocks} * disk.f_frsize;
  return {{"ts", std::time(nullptr)},
          {"cpu_count", sysconf(_SC_NPROCESSORS_ONLN)},
          {"cpu_used_pct", cpu_used_percent()},
          {"mem_total", total},
          {"mem_used", total - std::min(total, available)},
          {"mem_cache", memory_field(memory, "Cached:")},
          {"disk_used", disk_total - uint64_t{disk.f_bfree} * disk.f_frsize},
          {"disk_total", disk_total}};
}

}  // namespace stasis::guest
