// Taking a snapshot of a Sandbox: of one that is stopped for it from beginning to end, or of one that runs on and is
// copied meanwhile.
#include "base/clock.h"
#include "snapshot/ranges.h"
#include "snapshot/staging.h"
#include "snapshot/verified.h"
#include "supervisor/kept_map.h"
#include "supervisor/sandbox.h"
#include "supervisor/stopwatch.h"

namespace stasis::supervisor {
namespace {

using snapshot::kBlockSize;
using snapshot::Manifest;
using snapshot::SnapshotId;
using snapshot::SnapshotKind;

constexpr const char* kStatePart = "state";
constexpr const char* kScratch = "scratch";

}  // namespace

Result<SnapshotReply> Sandbox::take_snapshot(SnapshotId id, bool keep_running) {
  const Stopwatch total;
  STASIS_ASSIGN(const snapshot::StoreLock lock, store_.lock_shared());
  if (exists(store_.fs(), store_.snapshot_dir(id))) {
    return fail(Code::kAlreadyExists, "there is a snapshot " + id.text() + " already");
  }
  Taking taking{id};
  Result<SnapshotReply> reply = take(taking, keep_running);
  if (!reply) {
    shell_.vmm->save_failed();
    store_.abandon(id);
  }
  taking.live.reset();
  (void)remove_tree(store_.fs(), dir_ / kScratch);
  if (taking.stopped && (!reply || keep_running)) STASIS_TRY(go_on(taking));
  if (reply) {
    reply->stopped_us = taking.stopped ? taking.stopped->microseconds() : taking.stopped_us;
    reply->total_us = total.microseconds();
    reply->live = taking.ahead;
  }
  return reply;
}

Result<SnapshotReply> Sandbox::take(Taking& taking, bool keep_running) {
  STASIS_TRY(store_.fs().make_directory(dir_ / kScratch));
  STASIS_ASSIGN(const Path snapshot_dir, store_.begin(taking.id));
  STASIS_TRY_CONTEXT(disk_->prepare_freeze(), "store the disk");
  if (keep_running) STASIS_TRY_CONTEXT(copy_ahead(taking), "copy the guest's memory while it runs");
  taking.stopped.emplace();  // or will be: a VMM that does not say so in time, or refuses, may stop all the same
  STASIS_TRY_CONTEXT(shell_.vmm->pause(), "stop the guest");
  taking.stopped.emplace();
  // Before the VMM is asked what was written: what it gives back from now on is told to the next snapshot as well.
  if (page_server_) removed_ = snapshot::unite(removed_, page_server_->take_removed());
  auto saved = shell_.vmm->save({snapshot_dir / kStatePart, dir_ / kScratch, removed_});
  if (!saved) return fail(std::move(saved).error().with_context("save the machine's state"));
  const std::vector<Range> removed =
      page_server_ ? snapshot::unite(removed_, page_server_->removed()) : std::vector<Range>{};
  if (taking.ahead) taking.ahead->last_round_bytes = total_length(taking.live ? saved->fresh : saved->candidates);
  if (taking.live) {
    STASIS_TRY_CONTEXT(taking.live->copy_last(saved->source, saved->fresh), "copy the guest's memory");
  }
  STASIS_TRY_CONTEXT(disk_->freeze(), "store the disk");
  // Memory and disk are those of this moment, whatever the guest does from now on.
  if (taking.live) STASIS_TRY(go_on(taking));
  STASIS_TRY_CONTEXT(shell_.vmm->finish_save(), "write the machine's state");
  STASIS_ASSIGN(const disk::SealResult disk, seal_disk());
  auto memory = taking.live ? taking.live->seal(store_.layers_dir(), saved->candidates, removed)
                            : snapshot::capture(store_.fs(), store_.layers_dir(),
                                                {saved->source, saved->candidates, removed}, *memory_);
  if (!memory) return fail(std::move(memory).error().with_context("store the guest's memory"));
  return publish(taking.id, *memory, disk);
}

Status Sandbox::copy_ahead(Taking& taking) {
  const Path work_dir = dir_ / kScratch / "live";
  STASIS_TRY(store_.fs().make_directory(work_dir));
  STASIS_ASSIGN(taking.live, LiveCopy::create(store_.fs(), memory_, work_dir));
  STASIS_ASSIGN(taking.ahead, copy_in_rounds(*taking.live, [this] { return shell_.vmm->look_ahead(); }));
  if (taking.ahead->rounds == 0) taking.live.reset();
  return {};
}

// A guest that cannot go on would stand still for ever and count as running: it ends.
Status Sandbox::go_on(Taking& taking) {
  Status runs = shell_.vmm->resume();
  taking.stopped_us = taking.stopped->microseconds();
  taking.stopped.reset();
  if (runs) return {};
  Error error = std::move(runs).error().with_context("let the guest go on");
  const auto ended = wait_readable(vmm_pidfd(), Deadline::after(Milliseconds(0)));
  if (ended && *ended) return fail(std::move(error));  // how it did is told better by itself
  end_guest(error);
  return fail(std::move(error));
}

Result<SnapshotReply> Sandbox::publish(SnapshotId id, const snapshot::CaptureResult& memory,
                                       const disk::SealResult& disk) {
  Result<Manifest> manifest = describe(id, memory, disk);
  if (manifest) {
    const Status published = store_.publish(*manifest);
    if (!published) manifest = fail(Error(published.error()).with_context("publish the snapshot"));
  }
  if (!manifest) {
    // Nothing refers to the layer, unless the publication failed so late that its manifest stands: give its space back
    // now, the disk may be full.
    const auto stands = store_.load(id);
    if (memory.layer && !stands && stands.error().code == Code::kNotFound) {
      snapshot::drop_layer(store_.fs(), store_.layers_dir(), memory.layer->id);
    }
    return fail(std::move(manifest).error());
  }
  const snapshot::VerifiedLayers verified(store_);
  if (memory.layer) verified.note_written(memory.layer->id);
  if (disk.layer) verified.note_written(disk.layer->id);
  // Of the first generation everything is new: that says nothing about what is touched next.
  if (memory.map.metadata().generation > 0) {
    const snapshot::LayerId newest = memory.layer ? memory.layer->id : snapshot::LayerId{};
    // A guest that is paused before all it needs is written down has touched what is written down until then.
    (void)snapshot::write_first_guess(store_, id, memory.map, newest, touched());
  }
  // The snapshot exists. If the sandbox's own record of it cannot be written, the sandbox keeps standing on what it
  // stood on; the VMM's tracking has moved on, so the next capture must look at everything.
  last_snapshot_ = id;
  if (stand_on(memory.map)) {
    removed_.clear();
  } else {
    shell_.vmm->save_failed();
  }
  return SnapshotReply{id, manifest->memory, manifest->disk, 0, 0};
}

// The disk goes on above the sealed layer even if the snapshot fails later, so the sandbox's own record names it first.
Result<disk::SealResult> Sandbox::seal_disk() {
  const auto keep = [&](const snapshot::BlockMap& map) { return keep_map(store_.fs(), dir_ / kDiskMapFile, map); };
  auto sealed = disk_->seal_frozen(store_.layers_dir(), snapshot::LayerId::random(), keep);
  if (!sealed) return fail(std::move(sealed).error().with_context("store the disk"));
  return sealed;
}

Result<Manifest> Sandbox::describe(SnapshotId id, const snapshot::CaptureResult& memory, const disk::SealResult& disk) {
  Manifest manifest;
  manifest.id = id;
  manifest.kind = SnapshotKind::kSnapshot;
  manifest.parent = last_snapshot_;
  manifest.created_unix_ms = unix_time_ms();
  manifest.machine = shape_;
  manifest.vmm = shell_.vmm->info().name;
  manifest.vmm_version = shell_.vmm->info().version;
  manifest.kernel = base_.kernel;
  manifest.cpu_model = shell_.vmm->info().cpu_model;
  STASIS_ASSIGN(manifest.vm_state, store_.describe_part(id, kStatePart));
  STASIS_ASSIGN(manifest.memory_map, store_.write_map(id, kMemoryMapFile, memory.map));
  STASIS_ASSIGN(manifest.disk_map, store_.write_map(id, kDiskMapFile, disk.map));
  manifest.memory = {memory.map.metadata().generation, memory.blocks_stored * kBlockSize,
                     memory.blocks_zeroed * kBlockSize, memory.blocks_compared * kBlockSize};
  manifest.disk = {disk.map.metadata().generation, disk.blocks_stored * kBlockSize, disk.blocks_zeroed * kBlockSize,
                   (disk.blocks_stored + disk.blocks_zeroed) * kBlockSize};
  return manifest;
}

}  // namespace stasis::supervisor
