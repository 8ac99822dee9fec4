#include "base/kvm.h"

#include <fcntl.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>

#include <cerrno>
#include <cstring>

namespace stasis {
namespace {

constexpr uint64_t kReservedFlag = 2;  // bit 1 of RFLAGS is always set

Status set_up_memory(int vm, const Mapping& memory) {
  kvm_userspace_memory_region region{};
  region.memory_size = memory.bytes().size();
  region.userspace_addr = memory.address();
  if (::ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region) != 0) return fail_errno(errno, "KVM_SET_USER_MEMORY_REGION");
  return {};
}

// Code and data segments at 0: guest addresses are what the registers say.
Status enter_flat_real_mode(int vcpu) {
  kvm_sregs segments{};
  if (::ioctl(vcpu, KVM_GET_SREGS, &segments) != 0) return fail_errno(errno, "KVM_GET_SREGS");
  segments.cs.base = 0;
  segments.cs.selector = 0;
  if (::ioctl(vcpu, KVM_SET_SREGS, &segments) != 0) return fail_errno(errno, "KVM_SET_SREGS");
  return {};
}

KvmExit exit_of(uint32_t reason) {
  switch (reason) {
    case KVM_EXIT_HLT:
      return KvmExit::kHalt;
    case KVM_EXIT_INTERNAL_ERROR:
      return KvmExit::kInternalError;
    default:
      return KvmExit::kOther;
  }
}

}  // namespace

Result<KvmMachine> KvmMachine::create(size_t memory_bytes) {
  const UniqueFd kvm(::open("/dev/kvm", O_RDWR | O_CLOEXEC));
  if (!kvm) return fail_errno(errno, "open /dev/kvm");
  if (const int version = ::ioctl(kvm.get(), KVM_GET_API_VERSION, 0); version != KVM_API_VERSION) {
    return fail(Code::kUnimplemented, "/dev/kvm speaks API version " + std::to_string(version));
  }
  STASIS_ASSIGN(Mapping memory, Mapping::anonymous(memory_bytes));
  UniqueFd vm(::ioctl(kvm.get(), KVM_CREATE_VM, 0));
  if (!vm) return fail_errno(errno, "KVM_CREATE_VM");
  STASIS_TRY(set_up_memory(vm.get(), memory));
  UniqueFd vcpu(::ioctl(vm.get(), KVM_CREATE_VCPU, 0));
  if (!vcpu) return fail_errno(errno, "KVM_CREATE_VCPU");
  const int run_size = ::ioctl(kvm.get(), KVM_GET_VCPU_MMAP_SIZE, 0);
  if (run_size < 0) return fail_errno(errno, "KVM_GET_VCPU_MMAP_SIZE");
  STASIS_ASSIGN(Mapping run, Mapping::shared(vcpu.get(), static_cast<size_t>(run_size)));
  STASIS_TRY(enter_flat_real_mode(vcpu.get()));
  return KvmMachine(std::move(memory), std::move(vm), std::move(vcpu), std::move(run));
}

Result<KvmExit> KvmMachine::run(uint16_t entry, const KvmRegisters& registers) {
  kvm_regs start{};
  start.rip = entry;
  start.rflags = kReservedFlag;
  start.rax = registers.rax;
  start.rbx = registers.rbx;
  start.rcx = registers.rcx;
  if (::ioctl(vcpu_.get(), KVM_SET_REGS, &start) != 0) return fail_errno(errno, "KVM_SET_REGS");
  while (::ioctl(vcpu_.get(), KVM_RUN, 0) != 0) {
    if (errno != EINTR) return fail_errno(errno, "KVM_RUN");
  }
  uint32_t reason = 0;
  std::memcpy(&reason, run_.bytes().data() + offsetof(kvm_run, exit_reason), sizeof reason);
  return exit_of(reason);
}

Result<KvmRegisters> KvmMachine::registers() const {
  kvm_regs now{};
  if (::ioctl(vcpu_.get(), KVM_GET_REGS, &now) != 0) return fail_errno(errno, "KVM_GET_REGS");
  return KvmRegisters{now.rax, now.rbx, now.rcx};
}

}  // namespace stasis
