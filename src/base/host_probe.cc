#include "base/host_probe.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <fstream>
#include <functional>
#include <iterator>
#include <sstream>

#include "base/namespaces.h"
#include "base/network.h"

namespace stasis {
namespace {

// Runs `work` in a forked child and brings its outcome back through a pipe: the code as one byte, then the message.
Status in_child(const std::function<Status()>& work) {
  std::array<int, 2> pipe_fds{};
  if (::pipe2(pipe_fds.data(), O_CLOEXEC) != 0) return fail_errno(errno, "create pipe");
  const UniqueFd read_end(pipe_fds[0]);
  UniqueFd write_end(pipe_fds[1]);
  const pid_t pid = ::fork();
  if (pid < 0) return fail_errno(errno, "fork");
  if (pid == 0) {
    const Status outcome = work();
    std::string report(1, outcome ? '\0' : static_cast<char>(outcome.error().code));
    if (!outcome) report += outcome.error().message;
    const ssize_t sent = ::write(write_end.get(), report.data(), std::min<size_t>(report.size(), PIPE_BUF));
    ::_exit(sent > 0 ? 0 : 1);
  }
  write_end.reset();
  std::array<char, PIPE_BUF> buffer{};
  ssize_t n = 0;
  while ((n = ::read(read_end.get(), buffer.data(), buffer.size())) < 0 && errno == EINTR) {
  }
  while (::waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
  }
  if (n <= 0) return fail(Code::kInternal, "the probe died before it reported");
  if (buffer[0] == '\0') return {};
  return fail(static_cast<Code>(buffer[0]), std::string(buffer.data() + 1, static_cast<size_t>(n) - 1));
}

Status mount_fuse() {
  const UniqueFd fuse(::open("/dev/fuse", O_RDWR | O_CLOEXEC));
  if (!fuse) return fail_errno(errno, "open /dev/fuse");
  STASIS_TRY(enter_private_mount_namespace());
  const std::string options = "fd=" + std::to_string(fuse.get()) + ",rootmode=40000,user_id=0,group_id=0";
  if (::mount("stasis-probe", "/", "fuse", MS_NOSUID | MS_NODEV, options.c_str()) != 0) {
    return fail_errno(errno, "mount a FUSE file system");
  }
  return {};
}

std::vector<std::string> words_of(const Path& file) {
  std::ifstream in(file);
  return {std::istream_iterator<std::string>(in), std::istream_iterator<std::string>()};
}

// The enabled controllers of /proc/cgroups, which lists every version 1 hierarchy.
std::vector<std::string> controllers_of_version_1() {
  std::ifstream in("/proc/cgroups");
  std::vector<std::string> names;
  for (std::string line; std::getline(in, line);) {
    std::istringstream fields(line);
    std::string name;
    int hierarchy = 0;
    int groups = 0;
    int enabled = 0;
    if (fields >> name >> hierarchy >> groups >> enabled && hierarchy != 0 && enabled != 0) names.push_back(name);
  }
  return names;
}

}  // namespace

uid_t effective_user() { return ::geteuid(); }

Status probe_mount_namespace() { return in_child(enter_private_mount_namespace); }
Status probe_network_namespace() { return in_child(enter_private_network_namespace); }

Status probe_tap() {
  return in_child([]() -> Status {
    STASIS_TRY(enter_private_network_namespace());
    return create_tap("stasis-probe");
  });
}

Status probe_fuse() { return in_child(mount_fuse); }

CgroupSupport probe_cgroups() {
  const Path root = "/sys/fs/cgroup";
  CgroupSupport support;
  support.controllers = words_of(root / "cgroup.controllers");
  if (!support.controllers.empty()) {
    support.version = 2;
  } else {
    support.controllers = controllers_of_version_1();
    support.version = support.controllers.empty() ? 0 : 1;
  }
  std::sort(support.controllers.begin(), support.controllers.end());
  const Path tried = support.version == 1 ? root / "memory" : root;
  support.writable = support.version != 0 && ::access(tried.c_str(), W_OK) == 0;
  return support;
}

Result<DiskSpace> disk_space(const Path& path) {
  std::error_code error;
  Path existing = std::filesystem::absolute(path, error);
  while (!std::filesystem::exists(existing, error) && existing.has_parent_path() && existing != existing.root_path()) {
    existing = existing.parent_path();
  }
  struct statvfs info {};
  if (::statvfs(existing.c_str(), &info) != 0) return fail_errno(errno, "look at the file system of " + path.string());
  return DiskSpace{uint64_t{info.f_blocks} * info.f_frsize, uint64_t{info.f_bavail} * info.f_frsize};
}

Result<uint64_t> free_disk_space(const Path& path) {
  STASIS_ASSIGN(const DiskSpace space, disk_space(path));
  return space.free_bytes;
}

}  // namespace stasis
