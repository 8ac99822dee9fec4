#include "base/background.h"

#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace stasis {
namespace {

// From ioprio_set(2). <linux/ioprio.h> of some kernels is no C++: an argument of its is called `class`.
constexpr int kIoPrioWhoProcess = 1;
constexpr int kIoPrioClassIdle = 3;
constexpr int kIoPrioClassShift = 13;

}  // namespace

void become_background_thread() {
  const auto thread = static_cast<id_t>(::gettid());
  (void)::setpriority(PRIO_PROCESS, thread, 19);
  (void)::syscall(SYS_ioprio_set, kIoPrioWhoProcess, thread, kIoPrioClassIdle << kIoPrioClassShift);
}

}  // namespace stasis
