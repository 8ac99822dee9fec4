#include "base/process.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <map>

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

// Everything below runs in the child between fork and exec: only async-signal-safe calls, no allocation.
struct ChildPlan {
  char* const* argv;
  char* const* envp;
  std::array<int, 3> stdio;
  const std::pair<int, int>* fds;
  size_t fd_count;
  int* parked;  // fd_count slots
  bool new_session;
  bool die_with_parent;
  pid_t parent;
  int error_pipe;
};

[[noreturn]] void child_fail(const ChildPlan& plan) {
  const int error_number = errno;
  [[maybe_unused]] const ssize_t n = ::write(plan.error_pipe, &error_number, sizeof error_number);
  ::_exit(127);
}

// Moves every descriptor out of the way first (above 512), so that no dup2 lands on one that is still needed.
void place_descriptors(ChildPlan& plan) {
  constexpr int kParking = 512;
  // Whatever this process inherited or a library opened without O_CLOEXEC does not go on to the child.
  ::close_range(3, ~0U, CLOSE_RANGE_CLOEXEC);
  plan.error_pipe = ::fcntl(plan.error_pipe, F_DUPFD_CLOEXEC, kParking);
  if (plan.error_pipe < 0) ::_exit(127);
  for (size_t i = 0; i < plan.fd_count; ++i) {
    plan.parked[i] = ::fcntl(plan.fds[i].first, F_DUPFD_CLOEXEC, kParking);
    if (plan.parked[i] < 0) child_fail(plan);
  }
  for (int& fd : plan.stdio) {
    fd = fd >= 0 ? ::fcntl(fd, F_DUPFD_CLOEXEC, kParking) : ::open("/dev/null", O_RDWR | O_CLOEXEC);
    if (fd < 0) child_fail(plan);
  }
  for (int i = 0; i < 3; ++i) {
    if (::dup2(plan.stdio[static_cast<size_t>(i)], i) < 0) child_fail(plan);
  }
  for (size_t i = 0; i < plan.fd_count; ++i) {
    if (::dup2(plan.parked[i], plan.fds[i].second) < 0) child_fail(plan);
  }
}

[[noreturn]] void run_child(ChildPlan plan) {
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  for (const int number : {SIGPIPE, SIGINT, SIGTERM, SIGHUP, SIGCHLD}) ::signal(number, SIG_DFL);
  place_descriptors(plan);
  if (plan.new_session && ::setsid() < 0) child_fail(plan);
  if (plan.die_with_parent) {
    if (::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) child_fail(plan);
    if (::getppid() != plan.parent) ::_exit(127);  // the parent died before prctl: nobody would tell us
  }
  ::execvpe(plan.argv[0], plan.argv, plan.envp);
  child_fail(plan);
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
  std::vector<std::string> arguments = options.argv;
  std::vector<std::string> environment = merged_environment(options);
  const std::vector<char*> argv = pointers(arguments);
  const std::vector<char*> envp = pointers(environment);
  std::vector<int> parked(options.fds.size());
  std::array<int, 2> pipe_fds{};
  if (::pipe2(pipe_fds.data(), O_CLOEXEC) != 0) return fail_errno(errno, "create pipe");
  const UniqueFd read_end(pipe_fds[0]);
  UniqueFd write_end(pipe_fds[1]);

  const ChildPlan plan{argv.data(),
                       envp.data(),
                       {options.stdin_fd, options.stdout_fd, options.stderr_fd},
                       options.fds.data(),
                       options.fds.size(),
                       parked.data(),
                       options.new_session,
                       options.die_with_parent,
                       ::getpid(),
                       write_end.get()};
  const pid_t pid = ::fork();
  if (pid < 0) return fail_errno(errno, "fork");
  if (pid == 0) run_child(plan);
  write_end.reset();

  UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!pidfd) {
    const int error_number = errno;
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
    return fail_errno(error_number, "pidfd_open");
  }
  Process process(pid, std::move(pidfd));
  int exec_error = 0;
  ssize_t n = 0;
  while ((n = ::read(read_end.get(), &exec_error, sizeof exec_error)) < 0 && errno == EINTR) {
  }
  if (n == sizeof exec_error) {
    process.kill_and_wait();
    return fail_errno(exec_error, "start " + options.argv[0]);
  }
  return process;
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
