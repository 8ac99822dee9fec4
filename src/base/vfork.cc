#include "base/vfork.h"

#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>

// clone(), by the name that ThreadSanitizer does not intercept: it takes every clone for a fork, whose child has its
// own copy of the sanitizer's locks.
extern "C" int plain_clone(int (*function)(void*), void* stack, int flags, void* argument, ...) noexcept
    __asm__("__clone");

namespace stasis {
namespace {

// Nothing deep is called on it, and no handler of a signal runs there.
constexpr size_t kStackBytes = size_t{32} << 10;

// All of them, the C library's own too, which its wrappers leave out: a handler of the caller that ran in the child
// would run on the child's stack, in the caller's memory.
class AllSignalsBlocked {
 public:
  AllSignalsBlocked() {
    const uint64_t all = ~uint64_t{0};
    (void)syscall(SYS_rt_sigprocmask, SIG_BLOCK, &all, &before_, sizeof(before_));
  }
  ~AllSignalsBlocked() { (void)syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before_, nullptr, sizeof(before_)); }
  AllSignalsBlocked(const AllSignalsBlocked&) = delete;
  AllSignalsBlocked& operator=(const AllSignalsBlocked&) = delete;

 private:
  uint64_t before_ = 0;
};

}  // namespace

Status run_vforked(int (*child)(void*), void* argument, std::atomic<pid_t>& pid) {
  static_assert(sizeof(pid) == sizeof(pid_t) && std::atomic<pid_t>::is_always_lock_free);
  const auto stack = std::make_unique_for_overwrite<std::byte[]>(kStackBytes);
  const AllSignalsBlocked blocked;
  constexpr int kFlags = CLONE_VM | CLONE_VFORK | CLONE_PARENT_SETTID | SIGCHLD;
  if (plain_clone(child, stack.get() + kStackBytes, kFlags, argument, reinterpret_cast<pid_t*>(&pid)) < 0) {
    return fail_errno(errno, "fork");
  }
  return {};
}

// The handlers go before any signal can come.
STASIS_IN_CHILD void default_signals() {
  const uint64_t default_action[4] = {};  // the kernel's struct sigaction
  for (int number = 1; number < NSIG; ++number) {
    (void)syscall(SYS_rt_sigaction, number, default_action, nullptr, sizeof(uint64_t));
  }
  const uint64_t none = 0;
  (void)syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, nullptr, sizeof(none));
}

}  // namespace stasis
