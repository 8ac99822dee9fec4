#include "guest/boot_system.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "base/fd.h"
#include "guest/boot_common.h"
#include "guest/console.h"
#include "guest/kernel_cmdline.h"
#include "guest/network.h"
#include "guest/small_files.h"

namespace stasis::guest {
namespace {

// Of the kernel's fs/ext4/ext4.h; no header of user space has it.
constexpr unsigned long kExt4ResizeFs = _IOW('f', 16, uint64_t);

void report(const Status& status) {
  if (!status) log_line(status.error().message);
}

void mount_file_systems() {
  report(mount_kernel_file_systems());
  report(mount_on("devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "gid=5,mode=620,ptmxmode=666"));
  report(mount_on("tmpfs", "/dev/shm", MS_NOSUID | MS_NODEV, "mode=1777"));
  report(mount_on("tmpfs", "/run", MS_NOSUID | MS_NODEV, "mode=0755"));
  report(mount_on("tmpfs", "/tmp", MS_NOSUID | MS_NODEV, "mode=1777"));
  report(mount_on("cgroup2", "/sys/fs/cgroup", MS_NOSUID | MS_NOEXEC | MS_NODEV, nullptr));
  (void)mkdir("/run/lock", 01777);
  (void)symlink("/proc/self/fd", "/dev/fd");
  (void)symlink("/proc/self/fd/0", "/dev/stdin");
  (void)symlink("/proc/self/fd/1", "/dev/stdout");
  (void)symlink("/proc/self/fd/2", "/dev/stderr");
}

// The disk may be larger than the file system it was made from.
Status grow_root(const std::string& device) {
  UniqueFd disk(open(device.c_str(), O_RDONLY | O_CLOEXEC));
  if (!disk) return fail_errno(errno, "open " + device);
  uint64_t bytes = 0;
  if (ioctl(disk.get(), BLKGETSIZE64, &bytes) != 0) return fail_errno(errno, "size of " + device);
  UniqueFd root(open("/", O_RDONLY | O_CLOEXEC | O_DIRECTORY));
  struct statfs info {};
  if (!root || fstatfs(root.get(), &info) != 0 || info.f_bsize <= 0) return fail_errno(errno, "examine the root");
  uint64_t blocks = bytes / static_cast<uint64_t>(info.f_bsize);
  if (ioctl(root.get(), kExt4ResizeFs, &blocks) != 0) return fail_errno(errno, "grow the root file system");
  return {};
}

Status set_initial_hostname(const std::string& from_cmdline) {
  std::string name = from_cmdline;
  if (name.empty()) name = read_small_file("/etc/hostname", 256).value_or("stasis");
  while (!name.empty() && name.back() == '\n') name.pop_back();
  if (sethostname(name.data(), name.size()) != 0) return fail_errno(errno, "set host name");
  return {};
}

}  // namespace

void start_system() {
  mount_file_systems();
  auto cmdline = parse_cmdline(read_small_file("/proc/cmdline", 65536).value_or(""));
  report(set_initial_hostname(cmdline["stasis.hostname"]));
  report(configure_network(cmdline["stasis.ip"], cmdline["stasis.gw"]));
  if (auto dns = parse_address(cmdline["stasis.dns"])) {
    report(write_small_file("/etc/resolv.conf", "nameserver " + cmdline["stasis.dns"] + "\n"));
  }
  report(grow_root(cmdline["root"].starts_with("/dev/") ? cmdline["root"] : "/dev/vda"));
}

}  // namespace stasis::guest
