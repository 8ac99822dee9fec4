#include "base/reaper.h"

#include <sys/prctl.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>

namespace stasis {

Status become_subreaper() {
  if (::prctl(PR_SET_CHILD_SUBREAPER, 1) != 0) return fail_errno(errno, "become a subreaper");
  return {};
}

std::vector<pid_t> reap_orphans(std::span<const pid_t> own) {
  std::vector<pid_t> reaped;
  while (true) {
    siginfo_t info{};
    if (::waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid == 0) return reaped;
    if (std::find(own.begin(), own.end(), info.si_pid) != own.end()) return reaped;
    if (::waitpid(info.si_pid, nullptr, WNOHANG) == info.si_pid) reaped.push_back(info.si_pid);
  }
}

}  // namespace stasis
