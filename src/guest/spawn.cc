#include "guest/spawn.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/vfork.h"

namespace stasis::guest {
namespace {

constexpr gid_t kTtyGroup = 5;

enum class Stage : int { kSession, kTerminal, kDescriptors, kUser, kDirectory, kExec };

// What the child works from, all of it in memory that it shares with the daemon. `stage` and `error` are its answer.
struct Child {
  const char* path;
  char* const* argv;
  char* const* envp;
  const char* directory;
  int descriptors[3];
  bool terminal;
  uid_t uid;
  gid_t gid;
  const gid_t* groups;
  size_t group_count;
  Stage stage = Stage::kSession;
  int error = 0;
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

Status open_terminal(const SpawnRequest& request, PreparedSpawn& spawn) {
  spawn.output_fd.reset(open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (!spawn.output_fd) return fail_errno(errno, "open /dev/ptmx");
  int unlock = 0;
  if (ioctl(spawn.output_fd.get(), TIOCSPTLCK, &unlock) != 0) return fail_errno(errno, "unlock terminal");
  UniqueFd slave(ioctl(spawn.output_fd.get(), TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (!slave) return fail_errno(errno, "open terminal");
  winsize size{};
  size.ws_col = request.terminal->columns;
  size.ws_row = request.terminal->rows;
  (void)ioctl(slave.get(), TIOCSWINSZ, &size);
  (void)fchown(slave.get(), request.user.uid, kTtyGroup);
  spawn.child_out.reset(fcntl(slave.get(), F_DUPFD_CLOEXEC, 3));
  spawn.child_err.reset(fcntl(slave.get(), F_DUPFD_CLOEXEC, 3));
  spawn.child_in = std::move(slave);
  if (!spawn.child_out || !spawn.child_err) return fail_errno(errno, "duplicate terminal");
  return {};
}

Status open_pipes(const SpawnRequest& request, PreparedSpawn& spawn) {
  if (request.stdin_open) {
    STASIS_TRY(make_pipe(spawn.child_in, spawn.stdin_fd));
    set_nonblocking(spawn.stdin_fd.get());
  } else {
    spawn.child_in.reset(open("/dev/null", O_RDONLY | O_CLOEXEC));
    if (!spawn.child_in) return fail_errno(errno, "open /dev/null");
  }
  STASIS_TRY(make_pipe(spawn.output_fd, spawn.child_out));
  STASIS_TRY(make_pipe(spawn.error_fd, spawn.child_err));
  set_nonblocking(spawn.error_fd.get());
  // A program may open /dev/stdout by name: the pipes are its user's.
  for (const UniqueFd* fd : {&spawn.stdin_fd, &spawn.child_out, &spawn.child_err}) {
    if (fd->valid()) (void)fchown(fd->get(), request.user.uid, request.user.gid);
  }
  return {};
}

template <typename... Arguments>
STASIS_IN_CHILD bool call(Child& child, Stage stage, long number, Arguments... arguments) {
  if (syscall(number, arguments...) >= 0) return true;
  child.stage = stage;
  child.error = errno;
  return false;
}

STASIS_IN_CHILD bool take_descriptors(Child& child) {
  for (int target = 0; target < 3; ++target) {
    if (!call(child, Stage::kDescriptors, SYS_dup3, child.descriptors[target], target, 0)) return false;
  }
  // Closed here and now: a program that hangs in its exec would otherwise keep the connections and pipes of others
  // open.
  return call(child, Stage::kDescriptors, SYS_close_range, 3U, ~0U, 0U);
}

// Nobody who runs as that user may look from here at the memory of the daemon: with the change of the user the kernel
// makes it undumpable, which keeps debuggers and /proc/PID/mem away.
STASIS_IN_CHILD bool become_user(Child& child) {
  const auto current = static_cast<uid_t>(syscall(SYS_getuid));
  if (current != 0 && current == child.uid) return true;
  return call(child, Stage::kUser, SYS_setgroups, child.group_count, child.groups) &&
         call(child, Stage::kUser, SYS_setresgid, child.gid, child.gid, child.gid) &&
         call(child, Stage::kUser, SYS_setresuid, child.uid, child.uid, child.uid);
}

STASIS_IN_CHILD bool begin_session(Child& child) {
  return call(child, Stage::kSession, SYS_setsid) &&
         (!child.terminal || call(child, Stage::kTerminal, SYS_ioctl, child.descriptors[0], TIOCSCTTY, 0));
}

STASIS_IN_CHILD int run_child(void* argument) {
  Child& child = *static_cast<Child*>(argument);
  if (!begin_session(child) || !take_descriptors(child)) return 127;
  default_signals();
  (void)syscall(SYS_umask, 022);
  if (!become_user(child) || !call(child, Stage::kDirectory, SYS_chdir, child.directory)) return 127;
  (void)call(child, Stage::kExec, SYS_execve, child.path, child.argv, child.envp);
  return 127;
}

std::vector<char*> pointers(const std::string* first, const std::vector<std::string>& rest) {
  std::vector<char*> out;
  out.reserve(rest.size() + 2);
  if (first) out.push_back(const_cast<char*>(first->c_str()));
  for (const std::string& text : rest) out.push_back(const_cast<char*>(text.c_str()));
  out.push_back(nullptr);
  return out;
}

Status failure_of(const Child& child, const SpawnRequest& request) {
  std::string reason = std::strerror(child.error);
  switch (child.stage) {
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

}  // namespace

Result<PreparedSpawn> prepare_spawn(const SpawnRequest& request) {
  PreparedSpawn spawn;
  STASIS_ASSIGN(spawn.path, find_program(request));
  STASIS_TRY(request.terminal ? open_terminal(request, spawn) : open_pipes(request, spawn));
  set_nonblocking(spawn.output_fd.get());
  return spawn;
}

Status spawn_as_user(const SpawnRequest& request, PreparedSpawn prepared, std::atomic<pid_t>& pid) {
  const std::vector<char*> argv = pointers(&request.program, request.arguments);
  const std::vector<char*> envp = pointers(nullptr, request.environment);
  Child child{.path = prepared.path.c_str(),
              .argv = argv.data(),
              .envp = envp.data(),
              .directory = request.directory.c_str(),
              .descriptors = {prepared.child_in.get(), prepared.child_out.get(), prepared.child_err.get()},
              .terminal = request.terminal.has_value(),
              .uid = request.user.uid,
              .gid = request.user.gid,
              .groups = request.user.groups.data(),
              .group_count = request.user.groups.size()};
  STASIS_TRY(run_vforked(run_child, &child, pid));
  if (child.error != 0) return failure_of(child, request);
  return {};
}

}  // namespace stasis::guest
