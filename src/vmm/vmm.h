// One virtual machine in one VMM process, whatever program that is. A supervisor makes one Vmm, boots it or restores it
// once, pauses and resumes it any number of times, and saves it. What does not depend on what is restored can be done
// ahead: prepare(). Drivers: qemu/ and firecracker/. One contract suite
// (vmm/contract_*_test.cc) runs on every driver.
//
// Every path is as the VMM process sees it: the caller has entered the sandbox's own mount and network namespaces, and
// the paths are the same in every sandbox, so that a saved state restores anywhere. Not thread-safe: one thread drives
// a Vmm, and that thread must outlive it (the VMM process dies with the thread that started it).
#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/file_system.h"
#include "base/memory_source.h"
#include "base/result.h"
#include "pager/mapped_plan.h"
#include "snapshot/manifest.h"

namespace stasis::vmm {

// What the machine is made of. The same for boot and restore.
struct MachineConfig {
  snapshot::MachineShape shape;
  Path disk;         // raw file; empty: no disk
  std::string tap;   // host side of the network interface, in the caller's namespace; empty: no network
  std::string mac;   // "06:00:ac:1e:00:02"
  Path runtime_dir;  // private directory for the driver's sockets (fixed path, on a tmpfs)
  Path log;          // serial console and the VMM's own messages are appended here
};

struct BootSpec {
  Path vmlinux;
  Path initrd;               // empty: none
  std::string command_line;  // of the guest kernel; the driver adds what its machine needs
};

struct VmmInfo {
  std::string name;              // "qemu", "firecracker"
  std::string version;           // "7.2.22", "1.16.1"
  std::string accelerator = {};  // "kvm", "tcg"
  std::string cpu_model = {};    // what a saved state depends on: "qemu64", or the host's model name
};

struct RestoreSpec {
  Path state;          // the device state that save() wrote
  VmmInfo saved_with;  // by which VMM
  // How memory comes back: one of the two, or, if something of the plan is served, both. A driver that
  // maps_one_file() takes no such plan.
  Path uffd_socket = {};  // a page server listens here and serves before restore() is called
  std::shared_ptr<const pager::MappedPlan> mapped = {};  // what to map; for a driver that maps_one_file(), with `file`
  Path mapped_file = {};                                 // pager::as_one_file() of the plan
  // Called with the VMM's pid once its process exists, before its memory is handed over: the page server must be told
  // whom to expect (PageServer::expect_peer), since loading faults pages in. Its error is that of the restore.
  std::function<Status(pid_t)> on_started = {};
  Path log = {};  // where MachineConfig::log has been moved to since prepare(); empty: it has not
};

struct SaveSpec {
  Path state;  // a new file, for the device state
  // May be used for a memory file (Firecracker); the caller removes what is in it afterwards.
  Path scratch_dir;
  // Of memory that a page server serves: all that the guest has given back since the last save, sorted and disjoint.
  std::vector<Range> given_back = {};
};

// The guest's memory as save() left it: `source` has every block of `candidates`. It may be the memory of the VMM
// process, which must then live until it has been read: not after stop(). What is in no candidate has not been written
// since the machine was booted or restored, or since the last save() of this Vmm.
struct SavedMemory {
  MemorySource source;
  std::vector<Range> candidates;  // sorted, disjoint, multiples of 4 KiB
  std::vector<Range> fresh;       // of those, what no look_ahead() has told before, or what was written again since
};

// How much of the guest's memory is in the host's now.
struct GuestMemoryUse {
  uint64_t resident_bytes = 0;
  uint64_t own_bytes = 0;  // of these, what no other machine shares
};

class Vmm {
 public:
  virtual ~Vmm() = default;  // ends the process, whatever state it is in

  // Starts the process and boots; the guest runs when this returns.
  virtual Status boot(const BootSpec& spec) = 0;
  // Starts the process and makes everything of the machine but what restore() loads: for a VMM that waits for its
  // snapshot (and what the disk holds may change until then, its size may not). Such a machine can only be restored, or
  // stopped. `meanwhile` (none: nothing) makes what a machine needs around it, its runtime directory, disk and network:
  // it is called once, as late as the VMM can do without, and fails prepare() if it fails. After a failure there is no
  // process. kFailedPrecondition if it has been started already.
  virtual Status prepare(const std::function<Status()>& meanwhile) = 0;
  // Prepares the machine if nobody has, and loads device state; memory comes as the spec says. The guest is stopped
  // when this returns. A failed restore ends the process and says why: kNotFound for a state that is not there,
  // kDataLoss for one that is damaged or that the VMM calls foreign, kFailedPrecondition for one that another VMM saved
  // (compatible.h), kUnavailable if nobody serves pages.
  virtual Status restore(const RestoreSpec& spec) = 0;

  // vCPUs stop; in-flight disk writes have reached the disk, and until resume() nothing writes the guest's memory.
  // Repeating it is fine. The thread that pauses a machine for a save is the one that saves it, to finish_save() or
  // save_failed().
  virtual Status pause() = 0;
  virtual Status resume() = 0;  // vCPUs run. Repeating it is fine.

  // While the guest runs: what save() would offer now, for copying ahead of it. The guest goes on writing: a block that
  // is copied is good only if it is in neither the `fresh` of the next look_ahead() nor that of save(). What was told
  // and is no longer a candidate at the save reads as zeros. After a look ahead that leads to no save(): save_failed().
  // kUnimplemented where only a stopped machine can be asked.
  virtual Result<SavedMemory> look_ahead() = 0;

  // Paused only. Takes the device state and says where the memory is.
  // If the snapshot made of this fails after save() returned, the caller must tell (save_failed), so that the next save
  // offers everything again instead of only what was written since.
  virtual Result<SavedMemory> save(const SaveSpec& spec) = 0;
  // Once after each save() that is to be kept, whether the guest runs again or not: does what a guest need not stand
  // still for, and writes what save() has taken to its file, where it is not there yet (synced by the caller).
  virtual Status finish_save() = 0;
  virtual void save_failed() = 0;

  virtual const VmmInfo& info() const = 0;
  // True if a mapped memory must be one file.
  virtual bool maps_one_file() const = 0;
  // Zeros where that is not known.
  virtual GuestMemoryUse guest_memory() const { return {}; }
  // For a VMM that tells things by itself: readable when it does; -1 for one that does not. take_events(), then and
  // after any other call, by the same thread: takes what it tells. An error says that it has stopped the guest by
  // itself, which will not go on.
  virtual int events_fd() const { return -1; }
  virtual Status take_events() { return {}; }
  // Readable once the VMM process has exited; -1 before it is started.
  virtual int pidfd() const = 0;
  virtual pid_t pid() const = 0;
  // Kills the process and reaps it: how it ended, for the sandbox's record.
  virtual std::string stop() = 0;
};

// Where a driver's program is. kNotFound with the remedy (package, variable) if it is missing or does not run.
Result<VmmInfo> probe_qemu();
Result<VmmInfo> probe_firecracker();

// `kvm`: whether it works (probe_kvm).
std::unique_ptr<Vmm> make_qemu(const MachineConfig& config, bool kvm);
std::unique_ptr<Vmm> make_firecracker(const MachineConfig& config);

// True if /dev/kvm runs a guest in hardware (shown by running one), false with the reason otherwise.
struct KvmProbe {
  bool works = false;
  std::string reason;  // "no /dev/kvm", "emulated: ...", "ok"
};
KvmProbe probe_kvm();

}  // namespace stasis::vmm
