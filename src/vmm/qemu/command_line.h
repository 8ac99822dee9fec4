// What a QEMU is started with. What each option is for, and what was measured: shared/notes/qemu-microvm.md and
// docs/architecture.md.
#pragma once

#include <string>
#include <vector>

#include "vmm/vmm.h"

namespace stasis::vmm {

inline constexpr int kRamFd = 3;  // descriptor numbers inside QEMU
inline constexpr int kQmpFd = 4;
inline constexpr int kMappingFd = 5;

// Of every machine, whether it boots or is restored: the same hardware for the same configuration.
std::vector<std::string> qemu_command_line(const MachineConfig& config, bool kvm);
// That of the guest's kernel: what is given, and what this machine needs beside it. Takes 20 ms under TCG.
std::string guest_command_line(const std::string& given, bool kvm);

}  // namespace stasis::vmm
