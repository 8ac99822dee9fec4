// The Firecracker driver (1.13 or later): the program named by STASIS_FIRECRACKER, else `firecracker` in PATH, driven
// through its HTTP API on <runtime_dir>/firecracker.sock. The contract is vmm.h's; this header is for tests, which set
// other deadlines.
//
// Memory: save() lets Firecracker write a Full memory file after a boot, and a Diff after a restore or a further save.
// A hole of a Diff file means "not written", data means "written" (zeros too). It is a Full one again, whose every
// block is a candidate, after a save that failed or whose snapshot failed (Firecracker has forgotten which pages were
// written before it), and where the scratch directory's file system cannot tell holes from data to the page. A Full
// save of a restored machine faults in all of its memory first, so its page server must still be there.
//
// A mapped restore is Firecracker's `File` backend: it maps the file privately and never writes it.
//
// A saved state names the disk and the network interface by path and id: both must be there again for a restore. Pages
// that a guest gives back (a snapshot made elsewhere, with a balloon) are known to the page server alone.
#pragma once

#include <optional>

#include "base/process.h"
#include "vmm/firecracker/requests.h"

namespace stasis::vmm {

struct FirecrackerDeadlines {
  Milliseconds start{10'000};    // of the process, until its API answers
  Milliseconds request{30'000};  // any request but these two
  Milliseconds load{60'000};     // loading faults pages in, which a page server may have to fetch
  Milliseconds create{120'000};  // writing a Full memory file
  Milliseconds create_per_gib{30'000};
};

class Firecracker final : public Vmm {
 public:
  explicit Firecracker(MachineConfig config, FirecrackerDeadlines deadlines = {});

  Status boot(const BootSpec& spec) override;
  Status prepare(const std::function<Status()>& meanwhile) override;
  Status restore(const RestoreSpec& spec) override;
  Status pause() override { return set_paused(true); }
  Status resume() override { return set_paused(false); }
  Result<SavedMemory> look_ahead() override {
    return fail(Code::kUnimplemented, "Firecracker tells what a guest has written only when it is stopped");
  }
  Result<SavedMemory> save(const SaveSpec& spec) override;
  Status finish_save() override { return {}; }  // Firecracker has
  void save_failed() override { everything_next_ = true; }
  const VmmInfo& info() const override { return info_; }
  bool maps_one_file() const override { return true; }
  int pidfd() const override { return process_ ? process_->pidfd() : -1; }
  pid_t pid() const override { return process_ ? process_->pid() : -1; }
  std::string stop() override;

 private:
  enum class Phase { kNew, kPrepared, kRunning, kPaused, kEnded };

  Status start();
  Status restore_prepared(const RestoreSpec& spec);
  Status require_for_restore(const RestoreSpec& spec) const;
  Status spawn_process();
  Status await_api();
  Status check_version(const std::string& answer);
  Status boot_machine(const BootSpec& spec);
  Status load(const RestoreSpec& spec);
  Error load_error(Error error);
  Status set_paused(bool paused);
  Result<std::string> send(const ApiRequest& request, Milliseconds deadline);
  Status end_with(Error error);
  Error explain(Error error);
  Result<SavedMemory> create_snapshot(SnapshotType type, const Path& state, const Path& memory);
  uint64_t memory_bytes() const { return uint64_t{config_.shape.memory_mib} << 20; }
  Path socket() const { return config_.runtime_dir / "firecracker.sock"; }

  MachineConfig config_;
  FirecrackerDeadlines deadlines_;
  VmmInfo info_;
  ApiClient api_;
  Phase phase_ = Phase::kNew;
  bool everything_next_ = false;
  std::optional<Process> process_;
  std::string end_ = "not started";
};

// The program to run.
std::string firecracker_program();

}  // namespace stasis::vmm
