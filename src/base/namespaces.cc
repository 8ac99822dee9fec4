#include "base/namespaces.h"

#include <sched.h>
#include <sys/mount.h>

#include <cerrno>
#include <fstream>
#include <sstream>
#include <system_error>

#include "base/process.h"

namespace stasis {
namespace {

// In a chroot "/" is no mount point and cannot be made private; then each mount that is visible is made private by
// itself.
Status make_each_mount_private() {
  std::ifstream table("/proc/self/mountinfo");
  std::string line;
  while (std::getline(table, line)) {
    std::istringstream fields(line);
    std::string skipped;
    std::string mount_point;
    fields >> skipped >> skipped >> skipped >> skipped >> mount_point;
    // Mount points with spaces are escaped (\040) and those that were mounted over cannot be reached: neither matters
    // here, since Stasis mounts only on directories of its own.
    (void)::mount(nullptr, mount_point.c_str(), nullptr, MS_PRIVATE, nullptr);
  }
  return {};
}

}  // namespace

Status enter_private_mount_namespace() {
  STASIS_TRY(executable_directory());  // while /proc/self/exe still says where it is
  if (::unshare(CLONE_NEWNS) != 0) return fail_errno(errno, "create mount namespace (are you root?)");
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0) return {};
  if (errno == EINVAL) return make_each_mount_private();
  return fail_errno(errno, "make mounts private");
}

Status enter_private_network_namespace() {
  if (::unshare(CLONE_NEWNET) != 0) return fail_errno(errno, "create network namespace (are you root?)");
  return {};
}

Status mount_tmpfs(const Path& directory, uint64_t max_bytes) {
  const std::string options = "mode=0700,size=" + std::to_string(max_bytes);
  if (::mount("stasis", directory.c_str(), "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, options.c_str()) != 0) {
    return fail_errno(errno, "mount tmpfs on " + directory.string());
  }
  return {};
}

Status unmount(const Path& directory) {
  if (::umount2(directory.c_str(), MNT_DETACH) != 0) return fail_errno(errno, "unmount " + directory.string());
  return {};
}

Status make_directories(const Path& directory) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error) return fail_errno(error.value(), "make directory " + directory.string());
  return {};
}

}  // namespace stasis
