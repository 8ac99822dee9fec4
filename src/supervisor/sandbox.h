// One running sandbox, as its supervisor holds it: the disk and its FUSE export, the page server, and the VMM, in the
// mount and network namespaces that the process has entered before. Made by start(), which boots an image or restores a
// snapshot, in a shell of its own or in one that was there before; the destructor ends everything. One thread drives it
// (the one that must outlive the VMM), or another one at a time on its behalf; pager_report() is any thread's.
#pragma once

#include <memory>
#include <mutex>
#include <optional>

#include "base/poll.h"
#include "pager/page_server.h"
#include "snapshot/store.h"
#include "snapshot/working_set.h"
#include "supervisor/live_rounds.h"
#include "supervisor/protocol.h"
#include "supervisor/restore_way.h"
#include "supervisor/shell.h"
#include "supervisor/stopwatch.h"

namespace stasis::supervisor {

class Sandbox {
 public:
  // `dir` is the sandbox's directory. `spare` is a shell whose VMM has been prepared: kFailedPrecondition if it is not
  // what this sandbox needs. On failure nothing runs.
  static Result<std::unique_ptr<Sandbox>> start(const SandboxConfig& config, const Path& dir,
                                                std::optional<Shell> spare = {});
  ~Sandbox();
  Sandbox(const Sandbox&) = delete;
  Sandbox& operator=(const Sandbox&) = delete;

  StateReply state() const;
  PagerReport pager_report() const;
  TraceReply trace() const;

  // Publishes a snapshot of one moment. With `keep_running` the guest is stopped for as little as the VMM allows: where
  // it tells what a running guest writes, memory is copied ahead and stored afterwards. Without, the guest is stopped
  // first and stays so after a success: the caller destroys this object. After a failure the guest goes on, or its VMM
  // has been ended.
  Result<SnapshotReply> take_snapshot(snapshot::SnapshotId id, bool keep_running);

  // Readable when the VMM has exited.
  int vmm_pidfd() const { return shell_.vmm->pidfd(); }
  // Readable when the VMM may have stopped the guest by itself, which take_vmm_events() finds out, then and after each
  // snapshot; such a guest ends.
  int vmm_events_fd() const { return shell_.vmm->events_fd(); }
  void take_vmm_events();
  // Readable when the page server has given up, or when a guest could not go on; the VMM has been killed then.
  int failure_fd() const { return failure_event_.fd(); }
  // Readable when the disk has failed the guest (a damaged layer, not a full disk).
  int disk_failure_fd() const { return shell_.disk_export->failed_fd(); }
  // Readable when it is known what this restore touched; keep_working_set() then writes it down beside the snapshot and
  // the descriptor is -1 from then on.
  int working_set_fd() const { return records_ ? page_server_->working_set_fd() : -1; }
  void keep_working_set();
  // The guest's daemon does: little of what the restore needs is still to come.
  void daemon_answers();
  // Ends the VMM if it has not ended. Why: the page server's or the disk's failure if there was one, or why the guest
  // could not go on, else how it ended.
  Error end_of_vmm();

 private:
  // A snapshot on its way.
  struct Taking {
    snapshot::SnapshotId id;
    std::optional<LiveCopy> live = {};      // what was copied while the guest ran
    std::optional<LiveStats> ahead = {};    // if that was tried
    std::optional<Stopwatch> stopped = {};  // while the guest is
    uint64_t stopped_us = 0;                // once it goes on
  };
  Sandbox(SandboxConfig config, Path dir, snapshot::Store store, Event failure_event);
  Status run(std::optional<Shell> spare);
  Status open_and_put_up();
  Status open_and_take(Shell spare);
  Status open_base();
  Status find_base();
  Result<RestoreWay> choose_way() const;
  Status show_disk();
  Status boot();
  Status restore();
  Status serve_pages(vmm::RestoreSpec& spec);
  pager::PageServerOptions page_server_options();
  // Whether whatever this restore touches comes by a fault.
  bool sees_all() const { return !restore_way_->mapped; }
  // By this restore, as far as it is known.
  std::vector<snapshot::WorkingSetEntry> touched() const;
  void page_server_failed(const Error& error);
  void distrust_mapped_layers();
  std::optional<Error> lost_mapped_page(const std::string& end);
  Error why_not_started(const Error& error);
  void end_guest(Error why);
  void fail_guest(Error why, const std::lock_guard<std::mutex>& of_failure_mutex);
  Error prefer_failure(const Error& error);
  Result<SnapshotReply> take(Taking& taking, bool keep_running);
  Status copy_ahead(Taking& taking);
  Status go_on(Taking& taking);
  Result<SnapshotReply> publish(snapshot::SnapshotId id, const snapshot::CaptureResult& memory,
                                const disk::SealResult& disk);
  Result<disk::SealResult> seal_disk();
  Result<snapshot::Manifest> describe(snapshot::SnapshotId id, const snapshot::CaptureResult& memory,
                                      const disk::SealResult& disk);
  Status stand_on(const snapshot::BlockMap& memory_map);

  SandboxConfig config_;
  Path dir_;
  snapshot::Store store_;
  snapshot::Manifest base_;
  snapshot::MachineShape shape_;
  int64_t started_unix_ms_ = 0;
  uint64_t vmm_ready_us_ = 0;
  snapshot::SnapshotId last_snapshot_;  // parent of the next one

  // What pages are compared with at the next capture: the memory of the base, or of the last snapshot.
  std::shared_ptr<snapshot::AddressSpace> memory_;
  std::shared_ptr<snapshot::AddressSpace> disk_base_;
  std::unique_ptr<disk::CowDisk> disk_;  // outlives the shell, which shows it
  Event failure_event_;
  std::mutex failure_mutex_;
  std::optional<Error> failure_;
  UniqueFd failing_vmm_;  // pidfd, for the page server's thread
  std::unique_ptr<pager::PageServer> page_server_;
  std::vector<Range> removed_;                      // taken from the page server, and in no snapshot yet
  bool records_ = false;                            // the page server writes down what is touched
  bool came_ahead_ = false;                         // what restores before it touched was brought in
  std::optional<RestoreWay> restore_way_;           // none: booted
  std::vector<snapshot::WorkingSetEntry> touched_;  // see touched(); while it is written down: by restores before
  bool from_spare_ = false;
  Shell shell_;
};

}  // namespace stasis::supervisor
