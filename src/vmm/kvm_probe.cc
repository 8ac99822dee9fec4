// Does /dev/kvm run guests in hardware? On some hosts it is there without hardware behind it: kernel code of a guest is
// then interpreted one instruction at a time (0.56 us each was measured), and some instructions are not interpreted at
// all, popcnt among them. So the probe runs a guest: popcnt first, then a counted loop against the clock.
#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <limits>

#include "base/kvm.h"
#include "vmm/vmm.h"

namespace stasis::vmm {
namespace {

using std::chrono::nanoseconds;
using std::chrono::steady_clock;

constexpr size_t kMemoryBytes = 64 * 1024;
constexpr uint16_t kPopcntEntry = 0x1000;
constexpr uint16_t kLoopEntry = 0x2000;
constexpr uint32_t kLoopCount = 50'000;
constexpr int64_t kLoopInstructions = 3 * int64_t{kLoopCount};
constexpr int kAttempts = 3;  // the best counts: a busy host stalls a vCPU for milliseconds
// Hardware needs about 0.3 ns for an instruction, interpretation 560 ns.
constexpr nanoseconds kSlowestInstruction{50};

// 16-bit real mode.
constexpr std::array<uint8_t, 6> kPopcntCode{0xf3, 0x66, 0x0f, 0xb8, 0xc3,  // popcnt ebx, eax is its result
                                             0xf4};                         // hlt
constexpr std::array<uint8_t, 7> kLoopCode{0x66, 0x40,                      // inc eax
                                           0x66, 0x49,                      // dec ecx
                                           0x75, 0xfa,                      // jnz to inc
                                           0xf4};                           // hlt

void place(const KvmMachine& machine, uint16_t at, std::span<const uint8_t> code) {
  std::memcpy(machine.memory().data() + at, code.data(), code.size());
}

Status check_popcnt(KvmMachine& machine) {
  place(machine, kPopcntEntry, kPopcntCode);
  STASIS_ASSIGN(const KvmExit exit, machine.run(kPopcntEntry, {.rbx = 0xf0f0'1234}));
  STASIS_ASSIGN(const KvmRegisters result, machine.registers());
  if (exit != KvmExit::kHalt) return fail(Code::kUnimplemented, "emulated: the guest could not execute popcnt");
  if (result.rax != 13) return fail(Code::kUnimplemented, "emulated: the guest's popcnt gave a wrong result");
  return {};
}

Status check_speed(KvmMachine& machine) {
  place(machine, kLoopEntry, kLoopCode);
  nanoseconds best = nanoseconds::max();
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const auto start = steady_clock::now();
    STASIS_ASSIGN(const KvmExit exit, machine.run(kLoopEntry, {.rcx = kLoopCount}));
    best = std::min<nanoseconds>(best, steady_clock::now() - start);
    STASIS_ASSIGN(const KvmRegisters result, machine.registers());
    if (exit != KvmExit::kHalt || result.rax != kLoopCount) {
      return fail(Code::kUnimplemented, "emulated: the guest did not count correctly");
    }
    if (best <= kLoopInstructions * kSlowestInstruction) return {};
  }
  return fail(Code::kUnimplemented, "emulated: " + std::to_string(best.count() / kLoopInstructions) +
                                        " ns an instruction, too slow for hardware");
}

Status run_guest() {
  STASIS_ASSIGN(KvmMachine machine, KvmMachine::create(kMemoryBytes));
  STASIS_TRY(check_popcnt(machine));
  return check_speed(machine);
}

}  // namespace

KvmProbe probe_kvm() {
  const Status ran = run_guest();
  if (ran) return {true, "ok"};
  if (ran.error().code == Code::kNotFound) return {false, "no /dev/kvm"};
  return {false, ran.error().message};
}

}  // namespace stasis::vmm
