#include "base/kept_apart.h"

#include <algorithm>
#include <charconv>
#include <string>

#include "base/file_system.h"

namespace stasis {
namespace {

std::optional<cpu_set_t> allowed(pid_t thread) {
  cpu_set_t processors;
  if (::sched_getaffinity(thread, sizeof processors, &processors) != 0) return std::nullopt;
  return processors;
}

bool allow(pid_t thread, const cpu_set_t& processors) {
  return ::sched_setaffinity(thread, sizeof processors, &processors) == 0;
}

// None if nothing is left, or changed.
std::optional<cpu_set_t> without(cpu_set_t processors, int processor) {
  if (!CPU_ISSET(processor, &processors) || CPU_COUNT(&processors) == 1) return std::nullopt;
  CPU_CLR(processor, &processors);
  return processors;
}

std::vector<pid_t> threads_of(pid_t process) {
  const auto names = real_file_system().list("/proc/" + std::to_string(process) + "/task");
  if (!names) return {};
  std::vector<pid_t> threads;
  for (const std::string& name : *names) {
    pid_t thread = 0;
    if (std::from_chars(name.data(), name.data() + name.size(), thread).ec == std::errc()) threads.push_back(thread);
  }
  return threads;
}

}  // namespace

KeptApart::KeptApart(pid_t process) : process_(process), here_(::sched_getcpu()) {
  const auto own = allowed(0);
  if (here_ < 0 || !own) return;
  for (const pid_t thread : threads_of(process)) keep_off(thread);
  if (theirs_.empty()) return;
  cpu_set_t only;
  CPU_ZERO(&only);
  CPU_SET(here_, &only);
  if (allow(0, only)) own_ = own;
}

void KeptApart::keep_off(pid_t thread) {
  const auto before = allowed(thread);
  const auto others = before ? without(*before, here_) : std::nullopt;
  if (others && allow(thread, *others)) theirs_.push_back({thread, *before});
}

void KeptApart::keep_off(std::thread& thread) const {
  if (!own_) return;
  if (const auto others = without(*own_, here_)) {
    ::pthread_setaffinity_np(thread.native_handle(), sizeof *others, &*others);
  }
}

KeptApart::~KeptApart() {
  if (own_) allow(0, *own_);
  if (theirs_.empty()) return;
  for (const pid_t thread : threads_of(process_)) {
    // One that was started meanwhile has what its maker had.
    auto before = std::ranges::find(theirs_, thread, &Allowed::thread);
    if (before == theirs_.end()) before = std::ranges::find(theirs_, process_, &Allowed::thread);
    if (before != theirs_.end()) allow(thread, before->processors);
  }
}

}  // namespace stasis
