#include "base/testing/older_kernel.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "base/process.h"
#include "base/unix_socket.h"

namespace stasis::testing {
namespace {

constexpr int kSkipped = 77;
// Newer than Debian 12's headers: of Linux 6.7.
constexpr unsigned kPagemapScan = 0xC0606610;
constexpr uint64_t kFeatureWpAsync = 1U << 15;

sock_filter load(size_t offset) { return BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<uint32_t>(offset)); }
sock_filter if_equal(uint32_t value, uint8_t skip) { return BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, skip, 0); }
sock_filter unless_equal(uint32_t value, uint8_t skip) { return BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, skip); }
sock_filter answer(uint32_t action) { return BPF_STMT(BPF_RET | BPF_K, action); }

// The listener: uname() and these two of ioctl()'s requests wait for it.
UniqueFd install_filter() {
  std::array program{
      load(offsetof(seccomp_data, nr)),
      if_equal(SYS_uname, 4),
      unless_equal(SYS_ioctl, 4),
      load(offsetof(seccomp_data, args) + sizeof(uint64_t)),
      if_equal(static_cast<uint32_t>(UFFDIO_API), 1),
      unless_equal(kPagemapScan, 1),
      answer(SECCOMP_RET_USER_NOTIF),
      answer(SECCOMP_RET_ALLOW),
  };
  sock_fprog filter{program.size(), program.data()};
  const long listener = ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &filter);
  return UniqueFd(static_cast<int>(listener));
}

bool is_before(const std::string& release, std::pair<int, int> version) {
  std::pair<int, int> mine;
  return std::sscanf(release.c_str(), "%d.%d", &mine.first, &mine.second) == 2 && mine < version;
}

// Of the process that waits in a system call.
template <typename Value>
bool read_there(pid_t pid, uint64_t address, Value& value) {
  iovec here{&value, sizeof value};
  iovec there{reinterpret_cast<void*>(address), sizeof value};  // NOLINT(performance-no-int-to-ptr): its address
  return ::process_vm_readv(pid, &here, 1, &there, 1, 0) == sizeof value;
}

template <typename Value>
bool write_there(pid_t pid, uint64_t address, Value& value) {
  iovec here{&value, sizeof value};
  iovec there{reinterpret_cast<void*>(address), sizeof value};  // NOLINT(performance-no-int-to-ptr): its address
  return ::process_vm_writev(pid, &here, 1, &there, 1, 0) == sizeof value;
}

class OlderKernel {
 public:
  explicit OlderKernel(std::string release) : release_(std::move(release)), tells_(!is_before(release_, {6, 7})) {}

  // What the kernel of that release answers.
  seccomp_notif_resp answer_to(const seccomp_notif& call) const {
    seccomp_notif_resp answer{};
    answer.id = call.id;
    const auto pid = static_cast<pid_t>(call.pid);
    if (call.data.nr == SYS_uname) {
      answer.error = tell_release(pid, call.data.args[0]) ? 0 : -EFAULT;
    } else if (!tells_ && static_cast<uint32_t>(call.data.args[1]) == kPagemapScan) {
      answer.error = -ENOTTY;
    } else if (uffdio_api api{}; !tells_ && read_there(pid, call.data.args[2], api) && asks_for_more(call, api)) {
      answer.error = -EINVAL;
    } else {
      answer.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
    }
    return answer;
  }

 private:
  static bool asks_for_more(const seccomp_notif& call, const uffdio_api& api) {
    return static_cast<uint32_t>(call.data.args[1]) == UFFDIO_API && (api.features & kFeatureWpAsync) != 0;
  }
  bool tell_release(pid_t pid, uint64_t address) const {
    utsname system{};
    if (::uname(&system) != 0) return false;
    std::snprintf(system.release, sizeof system.release, "%s", release_.c_str());
    return write_there(pid, address, system);
  }

  std::string release_;
  bool tells_;
};

// In the child, which sends its listener.
[[noreturn]] void be_tested(int parent, const std::function<int()>& program) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  {
    const UniqueFd listener = install_filter();
    if (!listener) {
      std::printf("skipped: no filter of system calls with a listener: %s\n", std::strerror(errno));
      std::exit(kSkipped);  // NOLINT(concurrency-mt-unsafe): no thread has been started
    }
    const std::array fds{listener.get()};
    const std::array byte{std::byte{0}};
    if (!send_all(parent, byte, fds)) std::abort();
  }
  std::exit(program());  // NOLINT(concurrency-mt-unsafe): whatever the program has started
}

int status_of(pid_t child) {
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  if (WIFEXITED(status)) return WEXITSTATUS(status);
  std::fprintf(stderr, "ended by signal %d\n", WTERMSIG(status));
  return 1;
}

// Until the child has ended.
void serve(const OlderKernel& kernel, int listener, int child) {
  for (;;) {
    std::array<pollfd, 2> both{pollfd{listener, POLLIN, 0}, pollfd{child, POLLIN, 0}};
    if (::poll(both.data(), both.size(), -1) < 0) continue;
    if (both[1].revents != 0) return;
    seccomp_notif call{};
    if (::ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &call) != 0) continue;  // who called has been killed
    seccomp_notif_resp answer = kernel.answer_to(call);
    (void)::ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);
  }
}

}  // namespace

int run_on_older_kernel(const std::string& release, const std::function<int()>& program) {
  auto sockets = unix_socket_pair();
  if (!sockets) std::abort();
  const pid_t child = ::fork();
  if (child < 0) std::abort();
  if (child == 0) {
    sockets->first.reset();
    be_tested(sockets->second.get(), program);
  }
  sockets->second.reset();
  std::array<std::byte, 1> byte;
  const auto received = receive_with_fds(sockets->first.get(), byte);
  if (received && received->fds.size() == 1) {
    const auto ended = open_pidfd(child);
    if (!ended) std::abort();
    serve(OlderKernel(release), received->fds.front().get(), ended->get());
  }
  return status_of(child);
}

}  // namespace stasis::testing
