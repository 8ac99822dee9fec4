#include "guest/boot_common.h"

#include <signal.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "guest/kernel_cmdline.h"
#include "guest/small_files.h"

namespace stasis::guest {
namespace {

bool is_mount_point(const std::string& path) {
  struct stat own {};
  struct stat parent {};
  return stat(path.c_str(), &own) == 0 && stat((path + "/..").c_str(), &parent) == 0 && own.st_dev != parent.st_dev;
}

}  // namespace

Status mount_on(const char* type, const char* target, unsigned long flags, const char* data) {
  (void)mkdir(target, 0755);
  if (!is_mount_point(target) && mount(type, target, type, flags, data) != 0) {
    return fail_errno(errno, std::string("mount ") + type + " on " + target);
  }
  return {};
}

Status mount_kernel_file_systems() {
  STASIS_TRY(mount_on("proc", "/proc", MS_NOSUID | MS_NOEXEC | MS_NODEV, nullptr));
  STASIS_TRY(mount_on("sysfs", "/sys", MS_NOSUID | MS_NOEXEC | MS_NODEV, nullptr));
  return mount_on("devtmpfs", "/dev", MS_NOSUID, "mode=0755");
}

void power_off() {
  auto cmdline = parse_cmdline(read_small_file("/proc/cmdline", 65536).value_or(""));
  (void)kill(-1, SIGKILL);
  sync();
  (void)mount(nullptr, "/", nullptr, MS_REMOUNT | MS_RDONLY, nullptr);
  // A VMM without power management ends when the guest reboots.
  if (cmdline["stasis.poweroff"] != "reboot") (void)reboot(RB_POWER_OFF);
  (void)reboot(RB_AUTOBOOT);
  _exit(1);  // as init this is a kernel panic: the last way to end
}

}  // namespace stasis::guest
