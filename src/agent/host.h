// Everything that one host does with sandboxes: start, pause, resume, snapshot, destroy, adopt, end at the deadline. No
// gRPC here: service.cc translates. Thread-safe; one operation at a time on each sandbox (others get kAborted), except
// destroy, which ends whatever is under way. A Host that goes away leaves every sandbox running: the next one adopts
// them.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <semaphore>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "agent/compactor.h"
#include "agent/guest_client.h"
#include "agent/images.h"
#include "agent/pager_totals.h"
#include "agent/sandbox.h"
#include "agent/scrubber.h"
#include "agent/spares.h"
#include "agent/tokens.h"
#include "agent/warm_bases.h"
#include "base/file_lock.h"
#include "files/report.h"
#include "snapshot/diff.h"
#include "snapshot/inspect.h"
#include "snapshot/kept_import.h"
#include "snapshot/store.h"
#include "snapshot/verify.h"

namespace stasis::agent {

struct HostOptions {
  Path state_dir;
  Path supervisor_program;
  Path files_program;
  std::string vmm;  // "qemu" or "firecracker"
  std::vector<std::pair<std::string, Path>> images;
  bool warm_bases = true;
  size_t spares = 1;  // supervisors started ahead (spares.h)
};

// What a sandbox is to be. From an image: shape and disk size are chosen; from a snapshot they are the snapshot's.
struct StartSpec {
  std::string id;
  snapshot::SnapshotId base;
  snapshot::MachineShape shape;  // zeros for a snapshot
  uint64_t disk_bytes = 0;       // 0: as the base
  uint32_t timeout_sec = 0;      // 0: no end
  SandboxRecord record;          // hostname, token, env
  bool same_machine = false;     // a resume: it keeps its identity
  bool cold = false;             // an image is booted, whatever was kept of an earlier boot
  std::string restore;           // "uffd", "mapped": only so; empty: the best that is possible
  uint32_t load_mib_per_s = 0;   // of a restored memory, in the background; 0: only what is touched
};

struct Started {
  supervisor::StateReply info;  // as of when the daemon answered
  uint64_t vmm_ready_us = 0;
  uint64_t daemon_answered_us = 0;
  uint64_t total_us = 0;
};

struct Taken {
  supervisor::SnapshotReply reply;
  snapshot::Manifest manifest;
  uint64_t disk_bytes = 0;
};

struct SandboxView {
  std::string id;
  SandboxState state;
  std::string reason;
  int64_t deadline_unix_ms = 0;
  bool adopted = false;
  supervisor::StateReply info;
};

class Host {
 public:
  // Takes the state directory (kFailedPrecondition if another agent has it), imports images, adopts what runs.
  static Result<std::unique_ptr<Host>> open(const HostOptions& options);
  ~Host();
  Host(const Host&) = delete;
  Host& operator=(const Host&) = delete;

  // From now on everything that waits ends soon with kUnavailable: starts are undone; pauses and snapshots go on in
  // their supervisors, and so does every command in a guest. Nothing new is begun.
  void stop();

  Result<Started> start(const StartSpec& spec);
  // False if there was none.
  Result<bool> destroy(const std::string& id, const std::string& reason);
  Result<Taken> pause(const std::string& id, snapshot::SnapshotId snapshot);
  Result<Taken> snapshot(const std::string& id, snapshot::SnapshotId snapshot);
  // Bytes given back. kAborted if it is not there yet, but may still come.
  Result<uint64_t> delete_snapshot(snapshot::SnapshotId id);

  // host_archive.cc: a snapshot as one stream, with the name and the daemon's token beside it. Length of the whole.
  Result<uint64_t> export_snapshot(snapshot::SnapshotId id, const std::string& name, uint64_t from,
                                   const snapshot::ArchiveSink& sink) const;
  struct Imported {
    std::string name;  // as it was exported
    snapshot::Manifest manifest;
    uint64_t disk_bytes = 0;
  };
  // With `stream` what arrives is kept until forget_kept_import().
  Result<Imported> import_snapshot(snapshot::SnapshotId id, const std::optional<snapshot::ImportStream>& stream,
                                   const snapshot::ArchiveSource& source);
  // The name under which an archive was exported, from its beginning.
  static Result<std::string> archive_name(const snapshot::ArchiveSource& head);
  struct KeptImport {
    snapshot::Kept kept;
    std::string name;
  };
  Result<KeptImport> kept_import(const Uuid& stream) const;
  Status forget_kept_import(const Uuid& stream) const { return snapshot::forget_kept_import(store_, stream); }

  std::vector<SandboxView> list() const;
  // kNotFound; kFailedPrecondition unless it runs.
  Result<GuestClient> guest(const std::string& id) const;
  Result<supervisor::StateReply> state(const std::string& id) const;
  // host_pager.cc: of a running sandbox, and of all of this host. One that is busy with a snapshot counts as it was
  // last seen.
  Result<supervisor::TraceReply> trace(const std::string& id) const;
  supervisor::PagerReport pager_report();
  SpareCounts spare_counts() const { return spares_->counts(); }
  // Moves the end of its life to timeout_sec from now. Returns the deadline.
  Result<int64_t> extend(const std::string& id, uint32_t timeout_sec) const;
  Result<int64_t> deadline(const std::string& id) const;

  // host_store.cc: what the store holds, and whether it is whole. None of it waits for sandboxes.
  // `ids` empty: every snapshot and image.
  Result<snapshot::VerifyReport> verify(std::vector<snapshot::SnapshotId> ids,
                                        const snapshot::VerifyOptions& options) const;
  // kAborted while something is being written.
  Result<snapshot::CollectStats> collect_store(bool dry_run, std::chrono::seconds grace) const;
  struct Usage {
    snapshot::StoreUsage store;
    std::optional<uint64_t> reclaimable_bytes;  // absent while something is being written
  };
  Result<Usage> usage() const;
  Result<snapshot::SnapshotDetail> inspect(snapshot::SnapshotId id, size_t cells) const;
  struct Difference {
    std::string space;  // "memory", "disk"
    uint64_t from_size = 0;
    uint64_t to_size = 0;
    snapshot::SpaceDiff diff;
    std::optional<Result<files::Report>> files;  // of a disk: which ones differ, or why nobody can tell
  };
  // `go_on` false ends it with kCancelled.
  Result<std::vector<Difference>> diff(snapshot::SnapshotId from, snapshot::SnapshotId to,
                                       const std::function<bool()>& go_on) const;

  const snapshot::Store& store() const { return store_; }
  Compactor& compactor() { return *compactor_; }
  ScrubStatus scrub_status() const { return scrubber_->status(); }
  const std::map<std::string, Image>& images() const { return images_; }
  // Whether a snapshot is this host's own affair.
  bool is_warm_base(snapshot::SnapshotId id) const { return warm_bases_->contains(id); }

 private:
  using SandboxPtr = std::shared_ptr<Sandbox>;
  struct Ending {
    SandboxPtr sandbox;
    std::future<void> done;
  };
  Host(HostOptions options, snapshot::Store store, Tokens tokens, FileLock lock, Event stop);
  Path sandboxes_dir() const { return options_.state_dir / "sandboxes"; }
  Result<SandboxPtr> find(const std::string& id) const;
  std::vector<SandboxPtr> all() const;
  void forget(const SandboxPtr& sandbox);
  GuestClient client_of(const SandboxPtr& sandbox) const;

  // host_start.cc
  Status check(const StartSpec& spec) const;
  // The same sandbox from the warm base of its shape; nothing if there is none.
  std::optional<StartSpec> warm_spec(const StartSpec& spec);
  // Keeps the guest, which has just booted, as the warm base of its shape, unless there is one; before it has an
  // identity of its own, and after a rehearsal with nobody's.
  void make_warm_base(const SandboxPtr& sandbox, const StartSpec& spec, const GuestClient& guest);
  Result<Started> start_checked(const StartSpec& spec);
  Result<SandboxPtr> enter(const StartSpec& spec);
  Status make_directory(const SandboxPtr& sandbox, const StartSpec& spec) const;
  Result<Started> bring_up(const SandboxPtr& sandbox, const StartSpec& spec);
  // True if a spare has become its supervisor; false if there is none that fits, or none that does what it should.
  Result<bool> use_spare(const SandboxPtr& sandbox, const StartSpec& spec);
  std::optional<SpareShape> shape_of(const StartSpec& spec) const;
  Status become(const SandboxPtr& sandbox, Spare& spare) const;
  Status spawn_supervisor(const SandboxPtr& sandbox);
  Status connect_supervisor(const SandboxPtr& sandbox);
  Status await_vmm(const SandboxPtr& sandbox, const std::shared_ptr<supervisor::Client>& client) const;
  Result<std::shared_ptr<supervisor::Client>> await_socket(const SandboxPtr& sandbox) const;
  Result<GuestContact> await_daemon(const SandboxPtr& sandbox, const GuestClient& guest, Milliseconds limit) const;

  // host_end.cc. The caller holds the sandbox's operation.
  void end_processes(const SandboxPtr& sandbox, const std::string& reason);
  // Ends its processes and removes everything of it.
  void take_down(const SandboxPtr& sandbox, const std::string& reason);
  // The reason behind an error that came because the supervisor has gone: what it wrote last.
  Error explain(const SandboxPtr& sandbox, Error error) const;
  Result<supervisor::SnapshotReply> take(const SandboxPtr& sandbox, snapshot::SnapshotId id, bool keep_running);
  Result<supervisor::SnapshotReply> after_failed_take(const SandboxPtr& sandbox, snapshot::SnapshotId id, Error error);
  Status yield_to_destroy(const SandboxPtr& sandbox, snapshot::SnapshotId id);
  Result<Taken> describe(const supervisor::SnapshotReply& reply) const;
  bool is_published(snapshot::SnapshotId id) const;  // damaged or not
  uint64_t collect();                                // bytes given back

  bool may_be_written(snapshot::SnapshotId id) const;
  bool has_unsettled() const;  // supervisors of a former agent that have not answered yet

  // host_archive.cc
  Result<Imported> import_archive(snapshot::SnapshotId id, const std::optional<snapshot::ImportStream>& stream,
                                  const snapshot::ArchiveSource& source);

  // host_store.cc
  Result<files::Report> diff_files(snapshot::SnapshotId from, snapshot::SnapshotId to,
                                   const std::function<bool()>& go_on) const;

  // host_watch.cc
  Status adopt_all();
  void adopt(const std::string& id);
  void settle(const SandboxPtr& sandbox);
  void ended_unseen(const SandboxPtr& sandbox);
  void watch();
  void end_who_is_due();
  void end_if_due(const SandboxPtr& sandbox);

  HostOptions options_;
  snapshot::Store store_;
  Tokens tokens_;
  FileLock lock_;
  std::map<std::string, Image> images_;
  std::unique_ptr<WarmBases> warm_bases_;
  mutable std::mutex mutex_;
  std::map<std::string, SandboxPtr> sandboxes_;
  std::set<snapshot::SnapshotId> importing_;
  PagerTotals pager_totals_;
  std::mutex asking_;                                 // every page server, one caller after another
  mutable std::binary_semaphore comparing_files_{1};  // each comparison may take 1 GiB
  std::atomic<bool> collect_wanted_{true};
  std::atomic<bool> stopping_{false};
  Event stop_;
  std::vector<std::future<void>> settling_;
  std::vector<Ending> endings_;  // the watcher's
  std::thread watcher_;
  std::unique_ptr<Compactor> compactor_;
  std::unique_ptr<Scrubber> scrubber_;
  std::unique_ptr<Spares> spares_;
};

}  // namespace stasis::agent
