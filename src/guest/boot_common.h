// What both stages of booting need.
#pragma once

#include "base/result.h"

namespace stasis::guest {

// /proc, /sys and /dev, unless they are mounted already.
Status mount_kernel_file_systems();
// Mounts `type` on `target` (created if missing); success if something is mounted there already.
Status mount_on(const char* type, const char* target, unsigned long flags, const char* data);

// Kills what still runs, writes everything back and ends the machine; a kernel that cannot power off is rebooted
// instead, which ends a VMM that was told not to reboot.
[[noreturn]] void power_off();

}  // namespace stasis::guest
