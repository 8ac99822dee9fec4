#include "base/confine.h"

#include <grp.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <vector>

#include "base/namespaces.h"

namespace stasis {
namespace {

constexpr uid_t kNobody = 65534;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

#if defined(__x86_64__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_AARCH64;
#endif

constexpr uint32_t kAllowed[] = {
    SYS_read,         SYS_pread64,   SYS_lseek,   SYS_close,      SYS_sendmsg,         SYS_brk,
    SYS_munmap,       SYS_mremap,    SYS_madvise, SYS_futex,      SYS_clock_gettime,   SYS_gettimeofday,
    SYS_rt_sigreturn, SYS_getrandom, SYS_exit,    SYS_exit_group, SYS_restart_syscall,
};
// Only without PROT_EXEC: no new code.
constexpr uint32_t kAllowedForData[] = {SYS_mmap, SYS_mprotect};

sock_filter load(size_t offset) { return BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<uint32_t>(offset)); }
// Skips so many instructions unless the loaded word is `value`.
sock_filter unless_equal(uint32_t value, uint8_t skip) { return BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, skip); }
sock_filter answer(uint32_t action) { return BPF_STMT(BPF_RET | BPF_K, action); }

std::vector<sock_filter> filter() {
  std::vector<sock_filter> program{load(offsetof(seccomp_data, arch)),
                                   BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, kArchitecture, 1, 0),
                                   answer(SECCOMP_RET_KILL_PROCESS), load(offsetof(seccomp_data, nr))};
  for (const uint32_t number : kAllowed) {
    program.push_back(unless_equal(number, 1));
    program.push_back(answer(SECCOMP_RET_ALLOW));
  }
  for (const uint32_t number : kAllowedForData) {
    program.push_back(unless_equal(number, 4));
    program.push_back(load(offsetof(seccomp_data, args) + 2 * sizeof(uint64_t)));
    program.push_back(BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 1, 0));
    program.push_back(answer(SECCOMP_RET_ALLOW));
    program.push_back(answer(SECCOMP_RET_KILL_PROCESS));
  }
  program.push_back(answer(SECCOMP_RET_KILL_PROCESS));
  return program;
}

Status set_limit(__rlimit_resource resource, uint64_t value, std::string_view what) {
  const rlimit limit{value, value};
  if (::setrlimit(resource, &limit) != 0) return fail_errno(errno, what);
  return {};
}

// An empty file system that nobody may enter takes the place of everything.
Status leave_files_and_network() {
  STASIS_TRY(enter_private_mount_namespace());
  STASIS_TRY(enter_private_network_namespace());
  const Path empty = "/proc";
  STASIS_TRY(mount_tmpfs(empty, 4096));
  if (::chroot(empty.c_str()) != 0 || ::chdir("/") != 0) return fail_errno(errno, "enter an empty root directory");
  return {};
}

// Other credentials make the kernel forget PR_SET_PDEATHSIG.
Status become_nobody() {
  int death_signal = 0;
  const pid_t parent = ::getppid();
  if (::prctl(PR_GET_PDEATHSIG, &death_signal) != 0) return fail_errno(errno, "ask for the death signal");
  if (::setgroups(0, nullptr) != 0 || ::setresgid(kNobody, kNobody, kNobody) != 0 ||
      ::setresuid(kNobody, kNobody, kNobody) != 0) {
    return fail_errno(errno, "become the user nobody");
  }
  if (::prctl(PR_SET_PDEATHSIG, death_signal) != 0) return fail_errno(errno, "set the death signal");
  if (death_signal != 0 && ::getppid() != parent) return fail(Code::kCancelled, "the parent has gone");
  return {};
}

Status install_filter() {
  std::vector<sock_filter> program = filter();
  const sock_fprog what{static_cast<unsigned short>(program.size()), program.data()};
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return fail_errno(errno, "give up new privileges");
  if (::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &what) != 0)
    return fail_errno(errno, "install a system call filter");
  return {};
}

}  // namespace

Status confine_this_process(const ConfinementLimits& limits) {
  STASIS_TRY(leave_files_and_network());
  if (!kSanitized) STASIS_TRY(set_limit(RLIMIT_AS, limits.address_space, "limit memory"));
  STASIS_TRY(set_limit(RLIMIT_CORE, 0, "refuse core dumps"));
  STASIS_TRY(set_limit(RLIMIT_NPROC, 0, "refuse child processes"));
  ::signal(SIGALRM, SIG_DFL);
  ::alarm(static_cast<unsigned>(limits.time.count()));
  STASIS_TRY(become_nobody());
  return install_filter();
}

}  // namespace stasis
