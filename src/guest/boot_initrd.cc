#include "guest/boot_initrd.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <sstream>
#include <string>
#include <thread>

#include "base/fd.h"
#include "base/result.h"
#include "guest/boot_common.h"
#include "guest/console.h"
#include "guest/kernel_cmdline.h"
#include "guest/small_files.h"

namespace stasis::guest {
namespace {

constexpr const char* kProgram = "/usr/sbin/stasis-guest";
constexpr const char* kNewRoot = "/newroot";
constexpr std::chrono::seconds kDiskWait{20};
constexpr std::chrono::milliseconds kDiskPoll{5};

Status load_module(const std::string& path) {
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return fail_errno(errno, "open " + path);
  if (syscall(SYS_finit_module, fd.get(), "", 0) != 0 && errno != EEXIST) return fail_errno(errno, "load " + path);
  return {};
}

Status load_modules() {
  std::istringstream list(read_small_file("/modules.list", 65536).value_or(""));
  for (std::string path; std::getline(list, path);) {
    // A machine may lack the device of one; the disk is checked below.
    if (Status loaded = load_module(path); !loaded) log_line(loaded.error().message);
    (void)unlink(path.c_str());
  }
  return {};
}

Status wait_for_disk(const std::string& device) {
  auto end = std::chrono::steady_clock::now() + kDiskWait;
  struct stat info {};
  while (stat(device.c_str(), &info) != 0 || !S_ISBLK(info.st_mode)) {
    if (std::chrono::steady_clock::now() > end) {
      return fail(Code::kDeadlineExceeded,
                  "the root disk " + device + " did not appear in " + std::to_string(kDiskWait.count()) + " s");
    }
    std::this_thread::sleep_for(kDiskPoll);
  }
  return {};
}

Status enter_root(const std::string& device) {
  // No background work of a file system that has just been mounted: a snapshot taken meanwhile would have each of its
  // clones do it again, and keep the memory that it takes.
  // And no transaction of the journal for a file that is only overwritten: its times go to the disk with the next sync,
  // or after a day. An identity that is written over another one takes 8 ms less (QEMU under TCG).
  constexpr const char* kOptions = "noinit_itable,no_prefetch_block_bitmaps,discard";
  if (mount(device.c_str(), kNewRoot, "ext4", MS_NOATIME | MS_LAZYTIME, kOptions) != 0) {
    return fail_errno(errno, "mount " + device);
  }
  for (const char* directory : {"/dev", "/proc", "/sys"}) {
    std::string target = std::string(kNewRoot) + directory;
    (void)mkdir(target.c_str(), 0755);
    if (mount(directory, target.c_str(), nullptr, MS_MOVE, nullptr) != 0) return fail_errno(errno, "move " + target);
  }
  // The initramfs is memory: what it held is freed, also this program's file.
  (void)unlink("/init");
  (void)unlink("/modules.list");
  if (chdir(kNewRoot) != 0) return fail_errno(errno, "enter the root disk");
  if (mount(".", "/", nullptr, MS_MOVE, nullptr) != 0) return fail_errno(errno, "move the root disk to /");
  if (chroot(".") != 0 || chdir("/") != 0) return fail_errno(errno, "change root");
  return {};
}

Status boot() {
  STASIS_TRY(mount_kernel_file_systems());
  auto cmdline = parse_cmdline(read_small_file("/proc/cmdline", 65536).value_or(""));
  std::string device = cmdline["root"].starts_with("/dev/") ? cmdline["root"] : "/dev/vda";
  STASIS_TRY(load_modules());
  STASIS_TRY(wait_for_disk(device));
  STASIS_TRY(enter_root(device));
  char program[] = "/usr/sbin/stasis-guest";
  char* const argv[] = {program, nullptr};
  execv(kProgram, argv);
  return fail_errno(errno, std::string("start ") + kProgram);
}

}  // namespace

void boot_from_initrd() {
  Status done = boot();
  log_line("boot failed: " + done.error().message);
  power_off();
}

}  // namespace stasis::guest
