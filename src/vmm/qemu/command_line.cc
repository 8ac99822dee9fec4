#include "vmm/qemu/command_line.h"

#include <x86intrin.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <thread>

#include "vmm/identity.h"

namespace stasis::vmm {
namespace {

using nlohmann::json;

// The counter and the clock at one moment. Read together several times, of which the closest counts: whoever is
// interrupted between the two readings on a busy host would measure a wrong rate, and the guest would live with it.
struct Moment {
  std::chrono::steady_clock::time_point time;
  uint64_t tsc = 0;

  static Moment now() {
    Moment best;
    auto closest = std::chrono::steady_clock::duration::max();
    for (int i = 0; i < 16; ++i) {
      const auto before = std::chrono::steady_clock::now();
      const uint64_t tsc = __rdtsc();
      const auto took = std::chrono::steady_clock::now() - before;
      if (took >= closest) continue;
      closest = took;
      best = {before, tsc};
    }
    return best;
  }
};

// The rate of the time stamp counter in kHz. Under TCG the guest's TSC is the host's, and the guest kernel's own
// calibration against an emulated timer fails (one boot of six came up); tsc_early_khz tells it.
uint64_t measure_tsc_khz() {
  const Moment first = Moment::now();
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  const Moment last = Moment::now();
  const auto elapsed = std::chrono::duration_cast<std::chrono::nanoseconds>(last.time - first.time);
  return (last.tsc - first.tsc) * 1'000'000 / static_cast<uint64_t>(elapsed.count());
}

// A comma ends an option's value for QEMU, two are one comma.
std::string escaped(const std::string& value) {
  std::string out;
  for (const char c : value) out.append(c == ',' ? 2 : 1, c);
  return out;
}

}  // namespace

std::vector<std::string> qemu_command_line(const MachineConfig& config, bool kvm) {
  const std::string memory = std::to_string(config.shape.memory_mib) + "M";
  std::vector<std::string> list{
      kQemuProgram, "-M", std::string("microvm,memory-backend=ram,accel=") + (kvm ? "kvm" : "tcg"), "-cpu",
      // The timer of a bare qemu64 may stop while it idles, as it is said of this family: its kernel would tick 250
      // times a second for ever (5% of a processor, 0.6% without).
      kvm ? "host" : "qemu64,+arat", "-smp", std::to_string(config.shape.vcpus), "-m", memory,
      // A file of ours by descriptor, shared, so that x-ignore-shared leaves it out of the migration stream. It begins
      // where a huge page does, so that a layer's may be mapped in its place.
      "-object",
      "memory-backend-file,id=ram,share=on,align=2M,size=" + memory + ",mem-path=/proc/self/fd/" +
          std::to_string(kRamFd),
      // State changes are told as events instead of polled for. A restored guest need not tell its network that it has
      // moved: its namespace knows its address, and telling was an eighth of what it ran before its daemon's first
      // answer.
      "-global", "migration.x-events=on", "-global", "migration.announce-rounds=0", "-nodefaults", "-no-user-config",
      "-display", "none", "-no-reboot", "-chardev", "socket,id=qmp,fd=" + std::to_string(kQmpFd), "-mon",
      "chardev=qmp,mode=control", "-chardev", "file,id=console,append=on,path=" + escaped(config.log.string()),
      "-serial", "chardev:console", "-device", "virtio-rng-device", "-sandbox",
      "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"};
  if (!config.disk.empty()) {
    const json disk = {
        {"node-name", "root"},
        {"driver", "raw"},
        {"discard", "unmap"},
        {"file", {{"driver", "file"}, {"filename", config.disk.string()}, {"locking", "off"}, {"discard", "unmap"}}}};
    list.insert(list.end(), {"-blockdev", disk.dump(),
                             // A guest whose disk is full gets the error; the default would stop the whole machine.
                             "-device", "virtio-blk-device,drive=root,werror=report,rerror=report"});
  }
  if (!config.tap.empty()) {
    list.insert(list.end(), {"-netdev", "tap,id=net,script=no,downscript=no,ifname=" + config.tap, "-device",
                             "virtio-net-device,netdev=net,mac=" + config.mac});
  }
  return list;
}

std::string guest_command_line(const std::string& given, bool kvm) {
  return kvm ? given : given + " tsc_early_khz=" + std::to_string(measure_tsc_khz());
}

}  // namespace stasis::vmm
