#include "base/process.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <map>

#include "base/program_path.h"
#include "base/vfork.h"

namespace stasis {
namespace {

std::vector<std::string> merged_environment(const SpawnOptions& options) {
  std::map<std::string, std::string> merged;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    const size_t equals = text.find('=');
    if (equals != std::string_view::npos) merged[std::string(text.substr(0, equals))] = text.substr(equals + 1);
  }
  for (const auto& [name, value] : options.env) merged[name] = value;
  std::vector<std::string> list;
  list.reserve(merged.size());
  for (const auto& [name, value] : merged) list.push_back(std::string(name).append("=").append(value));
  return list;
}

std::vector<char*> pointers(std::vector<std::string>& strings) {
  std::vector<char*> result;
  result.reserve(strings.size() + 1);
  for (std::string& s : strings) result.push_back(s.data());
  result.push_back(nullptr);
  return result;
}

// What the child works from, in memory that it shares with us. `error` is its answer.
struct Child {
  char* const* programs;  // tried in turn
  char* const* argv;
  char* const* envp;
  int stdio[3];
  const std::pair<int, int>* fds;
  size_t fd_count;
  int* parked;  // fd_count slots
  bool new_session;
  bool die_with_parent;
  pid_t parent;
  int error = 0;
};

template <typename... Arguments>
STASIS_IN_CHILD bool call(Child& child, long number, Arguments... arguments) {
  if (::syscall(number, arguments...) >= 0) return true;
  child.error = errno;
  return false;
}

// Above 512.
STASIS_IN_CHILD bool park(Child& child, int fd, int& parked) {
  parked = static_cast<int>(::syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 512));
  if (parked < 0) child.error = errno;
  return parked >= 0;
}

// Moves every descriptor out of the way first, so that none is put where another one is still needed.
STASIS_IN_CHILD bool place_descriptors(Child& child) {
  // Whatever this process inherited or a library opened without O_CLOEXEC does not go on to the child.
  if (!call(child, SYS_close_range, 3U, ~0U, CLOSE_RANGE_CLOEXEC)) return false;
  for (size_t i = 0; i < child.fd_count; ++i) {
    if (!park(child, child.fds[i].first, child.parked[i])) return false;
  }
  for (int& fd : child.stdio) {
    if (!park(child, fd, fd)) return false;
  }
  for (int i = 0; i < 3; ++i) {
    if (!call(child, SYS_dup3, child.stdio[i], i, 0)) return false;
  }
  for (size_t i = 0; i < child.fd_count; ++i) {
    if (!call(child, SYS_dup3, child.parked[i], child.fds[i].second, 0)) return false;
  }
  return true;
}

STASIS_IN_CHILD bool die_with_parent(Child& child) {
  if (!call(child, SYS_prctl, PR_SET_PDEATHSIG, long{SIGKILL}, 0L, 0L, 0L)) return false;
  if (::syscall(SYS_getppid) == child.parent) return true;
  child.error = ESRCH;  // the parent died before that: nobody would tell us
  return false;
}

// A file that may not be executed hides none that may, further on; if there is none, it is the reason.
STASIS_IN_CHILD void execute(Child& child) {
  bool forbidden = false;
  for (char* const* program = child.programs; *program != nullptr; ++program) {
    child.error = 0;  // it stays so if this is the one
    (void)call(child, SYS_execve, *program, child.argv, child.envp);
    if (child.error == EACCES) {
      forbidden = true;
    } else if (child.error != ENOENT && child.error != ENOTDIR) {
      return;
    }
  }
  if (forbidden) child.error = EACCES;
}

STASIS_IN_CHILD int run_child(void* argument) {
  Child& child = *static_cast<Child*>(argument);
  default_signals();
  if (place_descriptors(child) && (!child.new_session || call(child, SYS_setsid)) &&
      (!child.die_with_parent || die_with_parent(child))) {
    execute(child);
  }
  return 127;
}

ExitStatus decode(const siginfo_t& info) {
  ExitStatus status;
  status.exited = info.si_code == CLD_EXITED;
  (status.exited ? status.code : status.signal) = info.si_status;
  return status;
}

}  // namespace

std::string ExitStatus::text() const {
  if (exited) return "exit status " + std::to_string(code);
  const char* description = ::sigdescr_np(signal);
  return "signal " + std::to_string(signal) + (description != nullptr ? " (" + std::string(description) + ")" : "");
}

Process::Process(Process&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)), pidfd_(std::move(other.pidfd_)), status_(other.status_) {}

Process& Process::operator=(Process&& other) noexcept {
  if (this != &other) {
    if (pid_ > 0) kill_and_wait();
    pid_ = std::exchange(other.pid_, -1);
    pidfd_ = std::move(other.pidfd_);
    status_ = other.status_;
  }
  return *this;
}

Process::~Process() {
  if (pid_ > 0) kill_and_wait();
}

void Process::signal(int number) const {
  if (!status_) signal_pidfd(pidfd_.get(), number);
}

Result<std::optional<ExitStatus>> Process::wait(Deadline deadline) {
  if (status_) return status_;
  STASIS_ASSIGN(const bool ready, wait_readable(pidfd_.get(), deadline));
  if (!ready) return std::nullopt;
  siginfo_t info{};
  while (::waitid(P_PIDFD, static_cast<id_t>(pidfd_.get()), &info, WEXITED) != 0) {
    if (errno != EINTR) return fail_errno(errno, "wait for process " + std::to_string(pid_));
  }
  status_ = decode(info);
  return status_;
}

ExitStatus Process::kill_and_wait() {
  signal(SIGKILL);
  auto waited = wait(Deadline::never());
  pid_ = -1;
  return waited && *waited ? **waited : ExitStatus{};
}

void Process::release() {
  pid_ = -1;
  pidfd_.reset();
}

Status outlive_parent() {
  if (::prctl(PR_SET_PDEATHSIG, 0) != 0) return fail_errno(errno, "outlive the parent process");
  return {};
}

Result<Process> spawn(const SpawnOptions& options) {
  if (options.argv.empty()) return fail(Code::kInvalidArgument, "no program to start is named");
  std::vector<std::string> programs = program_candidates(options.argv[0]);
  std::vector<std::string> arguments = options.argv;
  std::vector<std::string> environment = merged_environment(options);
  const std::vector<char*> program_list = pointers(programs);
  const std::vector<char*> argv = pointers(arguments);
  const std::vector<char*> envp = pointers(environment);
  std::vector<int> parked(options.fds.size());
  const UniqueFd nothing(::open("/dev/null", O_RDWR | O_CLOEXEC));
  if (!nothing) return fail_errno(errno, "open /dev/null");
  const auto or_nothing = [&](int fd) { return fd >= 0 ? fd : nothing.get(); };
  Child child{.programs = program_list.data(),
              .argv = argv.data(),
              .envp = envp.data(),
              .stdio = {or_nothing(options.stdin_fd), or_nothing(options.stdout_fd), or_nothing(options.stderr_fd)},
              .fds = options.fds.data(),
              .fd_count = options.fds.size(),
              .parked = parked.data(),
              .new_session = options.new_session,
              .die_with_parent = options.die_with_parent,
              .parent = ::getpid()};
  std::atomic<pid_t> pid = 0;
  STASIS_TRY(run_vforked(run_child, &child, pid));

  auto pidfd = open_pidfd(pid);
  if (!pidfd) {
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
    return fail(std::move(pidfd).error());
  }
  Process process(pid, std::move(*pidfd));
  if (child.error == 0) return process;
  process.kill_and_wait();
  return fail_errno(child.error, "start " + options.argv[0]);
}

Result<UniqueFd> open_pidfd(pid_t pid) {
  UniqueFd fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!fd && errno == ESRCH) return fail(Code::kNotFound, "there is no process " + std::to_string(pid));
  if (!fd) return fail_errno(errno, "open pidfd of process " + std::to_string(pid));
  return fd;
}

void signal_pidfd(int pidfd, int number) { ::syscall(SYS_pidfd_send_signal, pidfd, number, nullptr, 0); }

Result<Path> executable_directory() {
  static const Result<Path> directory = []() -> Result<Path> {
    std::error_code error;
    const Path self = std::filesystem::read_symlink("/proc/self/exe", error);
    if (error) return fail_errno(error.value(), "read /proc/self/exe");
    return self.parent_path();
  }();
  return directory;
}

}  // namespace stasis
