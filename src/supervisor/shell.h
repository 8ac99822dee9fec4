// What a sandbox is put into: the runtime directory, the network, the file of its disk, and a VMM; in the mount and
// network namespaces that the process has entered before. All of that follows from the shape of the machine alone, so a
// spare has it before anybody knows which sandbox it will be.
#pragma once

#include <functional>
#include <memory>

#include "disk/cow_disk.h"
#include "disk/fuse_export.h"
#include "supervisor/protocol.h"
#include "vmm/vmm.h"

namespace stasis::supervisor {

// The same in every sandbox's mount namespace: saved states record paths below it.
inline constexpr const char* kRuntimeDir = "/run/stasis-vm";

// Destroyed from the last member to the first: the VMM before who serves it.
struct Shell {
  SpareConfig config;
  // Zeros: what the disk's file shows until it is the sandbox's. It stays for as long as the file is served: one of the
  // threads that serve it may have read this, and nothing but the order of its requests in the kernel says that it is
  // done.
  std::unique_ptr<disk::CowDisk> blank;
  std::unique_ptr<disk::FuseExport> disk_export;
  std::unique_ptr<vmm::Vmm> vmm;
};

// The runtime directory and the network: the same whatever the shell will be. Once in the life of a process.
Status make_surroundings();

// Whether KVM works, where the VMM of this name has another way: to find out takes a guest that is run. False for
// Firecracker, which has none and does not ask.
bool has_kvm(const std::string& vmm);

// A VMM that has not been started, and nothing else. Its log will be in `dir`; `kvm`: has_kvm().
Shell plan_shell(const SpareConfig& config, const Path& dir, bool kvm);

// The rest, in the surroundings that `surroundings` makes or waits for. A VMM that is to restore is prepared (vmm.h),
// and starts meanwhile.
Status put_up(Shell& shell, bool restores, const std::function<Status()>& surroundings);

}  // namespace stasis::supervisor
