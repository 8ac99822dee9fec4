// Takes a process's pages away from it, as a host does whose memory is short: to swap where there is some, and what it
// has not written of a mapped file in any case. It gets them back when it touches them.
#pragma once

#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <fstream>
#include <sstream>
#include <string>

#include "base/process.h"

namespace stasis::testing {

inline void page_out(pid_t pid) {
  const auto process = open_pidfd(pid).value();
  std::ifstream maps("/proc/" + std::to_string(pid) + "/maps");
  for (std::string line; std::getline(maps, line);) {
    std::istringstream fields(line);
    uint64_t start = 0;
    uint64_t end = 0;
    char dash = 0;
    std::string permissions;
    fields >> std::hex >> start >> dash >> end >> permissions;
    if (permissions.find('w') == std::string::npos) continue;  // not its program: that would only make it slow
    iovec range{reinterpret_cast<void*>(start), end - start};  // NOLINT(performance-no-int-to-ptr): its address
    // Not all of what a process has can be taken.
    (void)::syscall(SYS_process_madvise, process.get(), &range, 1UL, MADV_PAGEOUT, 0U);
  }
}

}  // namespace stasis::testing
