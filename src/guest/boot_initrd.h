// The first program in the guest, as /init of the initramfs: loads the modules that /modules.list names, waits for the
// root disk, mounts it and becomes the same program there. On any failure it says why on the console and powers the
// guest off.
#pragma once

namespace stasis::guest {

[[noreturn]] void boot_from_initrd();

}  // namespace stasis::guest
