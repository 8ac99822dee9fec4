// The QEMU driver: machine type microvm, QMP over an inherited socket pair, guest memory as guest_ram.h says. Its
// functions are in machine.cc (from its start to its end), restore.cc and save.cc.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/piecework.h"
#include "base/process.h"
#include "vmm/host_cpu.h"
#include "vmm/qemu/command_line.h"
#include "vmm/qemu/guest_ram.h"
#include "vmm/qemu/mapping_channel.h"
#include "vmm/qemu/qmp.h"
#include "vmm/qemu/save_crew.h"
#include "vmm/vmm.h"

namespace stasis::vmm {

inline constexpr Milliseconds kCommandDeadline{30'000};

// A device state in a memory file, and the file that it is for.
struct StateToWrite {
  UniqueFd content;
  Path file;
};

class Qemu final : public Vmm {
 public:
  Qemu(MachineConfig config, bool kvm) : config_(std::move(config)), kvm_(kvm) {
    info_.name = "qemu";
    info_.accelerator = kvm ? "kvm" : "tcg";
    info_.cpu_model = kvm ? host_cpu_model() : "qemu64";
  }

  Status boot(const BootSpec& spec) override;
  // No guest: only to ask QEMU who it is.
  Status start_empty() { return start({"-S"}, Purpose::kNothing); }

  Status prepare(const std::function<Status()>& meanwhile) override;
  Status restore(const RestoreSpec& spec) override;
  Status pause() override;
  Status resume() override;
  Result<SavedMemory> look_ahead() override;
  Result<SavedMemory> save(const SaveSpec& spec) override;
  Status finish_save() override;
  void save_failed() override;
  const VmmInfo& info() const override { return info_; }
  bool maps_one_file() const override { return false; }
  GuestMemoryUse guest_memory() const override {
    return ram_ && process_ ? ram_->use(process_->pid()).value_or(GuestMemoryUse{}) : GuestMemoryUse{};
  }
  int events_fd() const override { return qmp_ && !qmp_ended_ ? qmp_->fd() : -1; }
  Status take_events() override;
  int pidfd() const override { return process_ ? process_->pidfd() : -1; }
  pid_t pid() const override { return process_ ? process_->pid() : -1; }
  std::string stop() override;

 private:
  enum class Purpose { kNothing, kBoot, kRestore };
  Status start(std::vector<std::string> more_arguments, Purpose purpose, const std::function<Status()>& meanwhile = {});
  Status preload(SpawnOptions& options, Purpose purpose);
  Status await_library(Purpose purpose);
  Status restore_prepared(const RestoreSpec& spec, int state);
  Status hand_over_memory(const RestoreSpec& spec);
  Status prepare_migration();
  Status load(const RestoreSpec& spec);
  Status await_end_of_migration();
  Status offer_state_file();
  Status export_device_state();
  Result<ChangedPages> export_and_look(std::span<const Range> given_back);
  Status command(const std::string& name, const nlohmann::json& arguments = nlohmann::json::object(), int fd = -1);
  // Its two halves, between which other things may be done.
  Status send(const std::string& name, const nlohmann::json& arguments = nlohmann::json::object(), int fd = -1);
  Status answer_to(const std::string& name);
  // What ended QEMU, if it has ended: put in front of errors that are only its consequence.
  Error explain(Error error);
  // In what state it then is.
  Result<std::optional<std::string>> stopped_by_itself();
  // Whether QEMU says that it could move the device state.
  Result<bool> await_migration();

  MachineConfig config_;
  bool kvm_;
  VmmInfo info_;
  std::optional<GuestRam> ram_;
  std::optional<Process> process_;
  std::string end_;  // how it ended, once it has
  std::optional<Qmp> qmp_;
  bool qmp_ended_ = false;                 // nothing more is taken from it
  std::optional<MappingChannel> mapping_;  // of a prepared machine, until it has its memory
  bool stopped_ = false;                   // the vCPUs, by pause() or since a restore
  UniqueFd state_file_;                    // a memory file that QEMU has, too, since pause() and until the next save
  UniqueFd device_state_;                  // that file, since the last save and until the guest runs on
  std::optional<SaveCrew> save_crew_;      // since pause() and until finish_save()
  std::optional<StateToWrite> unwritten_;  // since save() and until finish_save()
};

}  // namespace stasis::vmm
