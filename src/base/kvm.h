// The part of KVM that a probe needs: one virtual machine with one vCPU in real mode and a single piece of memory that
// begins at guest address 0. Not for running real guests: that is a VMM's work.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/fd.h"
#include "base/memory.h"
#include "base/result.h"

namespace stasis {

struct KvmRegisters {
  uint64_t rax = 0;
  uint64_t rbx = 0;
  uint64_t rcx = 0;
};

enum class KvmExit {
  kHalt,           // the guest executed HLT
  kInternalError,  // KVM could not execute an instruction
  kOther,
};

class KvmMachine {
 public:
  // kNotFound without /dev/kvm, kPermissionDenied if it may not be opened, kUnimplemented for another API version.
  // `memory_bytes`: a multiple of 4096, at most 1 MiB (what real mode reaches).
  static Result<KvmMachine> create(size_t memory_bytes);

  std::span<std::byte> memory() const { return memory_.bytes(); }
  // Begins at guest address `entry` (below 64 KiB) with these registers and runs until the guest stops.
  Result<KvmExit> run(uint16_t entry, const KvmRegisters& registers);
  Result<KvmRegisters> registers() const;

 private:
  KvmMachine(Mapping memory, UniqueFd vm, UniqueFd vcpu, Mapping run)
      : memory_(std::move(memory)), vm_(std::move(vm)), vcpu_(std::move(vcpu)), run_(std::move(run)) {}
  // Destroyed in reverse order: the guest's memory goes last.
  Mapping memory_;
  UniqueFd vm_;
  UniqueFd vcpu_;
  Mapping run_;
};

}  // namespace stasis
