#include "guest/spawn.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace stasis::guest {
namespace {

constexpr gid_t kTtyGroup = 5;

enum class Stage : int { kSession, kTerminal, kDescriptors, kUser, kDirectory, kExec };

struct ChildFailure {
  Stage stage;
  int error;
};

// What the child needs, all made before the fork: after it only system calls are allowed.
struct Plan {
  std::string path;
  std::vector<char*> argv;
  std::vector<char*> envp;
  UniqueFd child_in, child_out, child_err;
  UniqueFd report;
};

std::string search_path(const std::vector<std::string>& environment) {
  for (const std::string& entry : environment) {
    if (entry.starts_with("PATH=")) return entry.substr(5);
  }
  return "/usr/local/bin:/usr/bin:/bin";
}

bool is_program(const std::string& path) {
  struct stat info {};
  return stat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode) && (info.st_mode & 0111) != 0;
}

Result<std::string> find_program(const SpawnRequest& request) {
  if (request.program.empty()) return fail(Code::kInvalidArgument, "the command is empty");
  if (request.program.find('/') != std::string::npos) {
    // Relative to the child's directory; whether it can run, exec says.
    return request.program;
  }
  std::string rest = search_path(request.environment);
  while (!rest.empty()) {
    size_t colon = rest.find(':');
    std::string candidate = rest.substr(0, colon) + "/" + request.program;
    rest = colon == std::string::npos ? "" : rest.substr(colon + 1);
    if (is_program(candidate)) return candidate;
  }
  return fail(Code::kInvalidArgument, "exec: \"" + request.program + "\": executable file not found in $PATH");
}

Status make_pipe(UniqueFd& read_end, UniqueFd& write_end) {
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) != 0) return fail_errno(errno, "create pipe");
  read_end.reset(fds[0]);
  write_end.reset(fds[1]);
  return {};
}

void set_nonblocking(int fd) { (void)fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK); }

Status open_terminal(const SpawnRequest& request, Spawned& spawned, Plan& plan) {
  spawned.output_fd.reset(open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (!spawned.output_fd) return fail_errno(errno, "open /dev/ptmx");
  int unlock = 0;
  if (ioctl(spawned.output_fd.get(), TIOCSPTLCK, &unlock) != 0) return fail_errno(errno, "unlock terminal");
  UniqueFd slave(ioctl(spawned.output_fd.get(), TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (!slave) return fail_errno(errno, "open terminal");
  winsize size{};
  size.ws_col = request.terminal->columns;
  size.ws_row = request.terminal->rows;
  (void)ioctl(slave.get(), TIOCSWINSZ, &size);
  (void)fchown(slave.get(), request.user.uid, kTtyGroup);
  plan.child_out.reset(fcntl(slave.get(), F_DUPFD_CLOEXEC, 3));
  plan.child_err.reset(fcntl(slave.get(), F_DUPFD_CLOEXEC, 3));
  plan.child_in = std::move(slave);
  if (!plan.child_out || !plan.child_err) return fail_errno(errno, "duplicate terminal");
  return {};
}

Status open_pipes(const SpawnRequest& request, Spawned& spawned, Plan& plan) {
  if (request.stdin_open) {
    STASIS_TRY(make_pipe(plan.child_in, spawned.stdin_fd));
    set_nonblocking(spawned.stdin_fd.get());
  } else {
    plan.child_in.reset(open("/dev/null", O_RDONLY | O_CLOEXEC));
    if (!plan.child_in) return fail_errno(errno, "open /dev/null");
  }
  STASIS_TRY(make_pipe(spawned.output_fd, plan.child_out));
  STASIS_TRY(make_pipe(spawned.error_fd, plan.child_err));
  set_nonblocking(spawned.error_fd.get());
  // A program may open /dev/stdout by name: the pipes are its user's.
  for (const UniqueFd* fd : {&spawned.stdin_fd, &plan.child_out, &plan.child_err}) {
    if (fd->valid()) (void)fchown(fd->get(), request.user.uid, request.user.gid);
  }
  return {};
}

[[noreturn]] void child_fail(const Plan& plan, Stage stage) {
  ChildFailure failure{stage, errno};
  (void)!write(plan.report.get(), &failure, sizeof(failure));
  _exit(127);
}

void reset_signals() {
  for (int number = 1; number < NSIG; ++number) (void)signal(number, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  (void)sigprocmask(SIG_SETMASK, &none, nullptr);
}

// The plain system calls: the library's wrappers would take locks that another thread of the parent may have held.
void become_user(const Plan& plan, const User& user) {
  bool changed = syscall(SYS_getuid) == 0;
  if (!changed && user.uid == static_cast<uid_t>(syscall(SYS_getuid))) return;
  if (syscall(SYS_setgroups, user.groups.size(), user.groups.data()) != 0) child_fail(plan, Stage::kUser);
  if (syscall(SYS_setresgid, user.gid, user.gid, user.gid) != 0) child_fail(plan, Stage::kUser);
  if (syscall(SYS_setresuid, user.uid, user.uid, user.uid) != 0) child_fail(plan, Stage::kUser);
}

[[noreturn]] void run_child(const SpawnRequest& request, const Plan& plan) {
  if (setsid() < 0) child_fail(plan, Stage::kSession);
  if (request.terminal && ioctl(plan.child_in.get(), TIOCSCTTY, 0) != 0) child_fail(plan, Stage::kTerminal);
  const int sources[3] = {plan.child_in.get(), plan.child_out.get(), plan.child_err.get()};
  for (int target = 0; target < 3; ++target) {
    if (dup2(sources[target], target) < 0) child_fail(plan, Stage::kDescriptors);
  }
  (void)syscall(SYS_close_range, 3U, ~0U, CLOSE_RANGE_CLOEXEC);
  reset_signals();
  umask(022);
  become_user(plan, request.user);
  if (chdir(request.directory.c_str()) != 0) child_fail(plan, Stage::kDirectory);
  execve(plan.path.c_str(), plan.argv.data(), plan.envp.data());
  child_fail(plan, Stage::kExec);
}

}  // namespace

Result<Spawned> spawn_as_user(const SpawnRequest& request) {
  Spawned spawned;
  Plan plan;
  STASIS_ASSIGN(plan.path, find_program(request));
  STASIS_TRY(request.terminal ? open_terminal(request, spawned, plan) : open_pipes(request, spawned, plan));
  set_nonblocking(spawned.output_fd.get());
  STASIS_TRY(make_pipe(spawned.exec_status, plan.report));
  plan.argv.push_back(const_cast<char*>(request.program.c_str()));
  for (const std::string& argument : request.arguments) plan.argv.push_back(const_cast<char*>(argument.c_str()));
  for (const std::string& entry : request.environment) plan.envp.push_back(const_cast<char*>(entry.c_str()));
  plan.argv.push_back(nullptr);
  plan.envp.push_back(nullptr);
  spawned.pid = fork();
  if (spawned.pid < 0) return fail_errno(errno, "fork");
  if (spawned.pid == 0) run_child(request, plan);
  return spawned;
}

Status exec_result(const Spawned& spawned, const SpawnRequest& request) {
  ChildFailure failure{};
  ssize_t count = 0;
  do {
    count = read(spawned.exec_status.get(), &failure, sizeof(failure));
  } while (count < 0 && errno == EINTR);
  if (count != sizeof(failure)) return {};
  std::string reason = std::strerror(failure.error);
  switch (failure.stage) {
    case Stage::kDirectory:
      return fail(Code::kInvalidArgument, "cwd '" + request.directory + "': " + reason);
    case Stage::kExec:
      return fail(Code::kInvalidArgument, "exec: \"" + request.program + "\": " + reason);
    case Stage::kUser:
      return fail(Code::kPermissionDenied, "run as user '" + request.user.name + "': " + reason);
    case Stage::kSession:
    case Stage::kTerminal:
    case Stage::kDescriptors:
      break;
  }
  return fail(Code::kInternal, "prepare process: " + reason);
}

}  // namespace stasis::guest
