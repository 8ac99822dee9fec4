#include "supervisor/sandbox.h"

#include <signal.h>
#include <unistd.h>

#include <future>

#include "base/clock.h"
#include "base/file.h"
#include "base/process.h"
#include "net/sandbox_network.h"
#include "snapshot/verified.h"
#include "supervisor/kept_map.h"
#include "supervisor/pager_words.h"
#include "supervisor/stopwatch.h"

namespace stasis::supervisor {
namespace {

using snapshot::BlockMap;
using snapshot::kBlockSize;
using snapshot::Manifest;
using snapshot::SnapshotId;
using snapshot::SnapshotKind;

constexpr Milliseconds kHandOverDeadline{2'000};
// How long a restore writes down what it touches: until the daemon has answered (0.2 s on an idle machine under TCG, a
// second or two on a loaded one) and a little longer, in which it gets its identity; at most so long if nobody tells.
constexpr Milliseconds kRecordFor{3'000};
constexpr Milliseconds kRecordAfterAnswer{250};
// Until a working set was seen in so many restores it is a guess: what only one guest happened to touch would be
// brought in for all that come after it.
constexpr uint32_t kEnoughRestores = 2;

// How a VMM ends that touches a page which cannot be read: QEMU by the signal; Firecracker with a status of its own if
// its threads touch it (FcExitCode::SIGBUS), and if its guest does, which KVM runs, with one that only its log tells
// from another error. So does QEMU's library that copies such a page.
const std::string kBusError = ExitStatus{.exited = false, .code = 0, .signal = SIGBUS}.text();
const std::string kBusErrorStatus = ExitStatus{.exited = true, .code = 149, .signal = 0}.text();
const std::string kGaveUp = ExitStatus{.exited = true, .code = 1, .signal = 0}.text();

// Recommended by images/README.md, where each word is explained. Quiet, because each line on the serial console costs a
// guest under TCG milliseconds.
constexpr const char* kKernelCommandLine =
    "console=ttyS0 quiet reboot=t panic=-1 tsc=reliable cryptomgr.notests root=/dev/vda rw stasis.ip=172.30.0.2/30 "
    "stasis.gw=172.30.0.1";
// Firecracker has no power management: its guests end by a reboot.
constexpr const char* kFirecrackerWords = " pci=off stasis.poweroff=reboot";

Result<BlockMap> disk_map_of(const snapshot::Store& store, const Manifest& base, uint64_t wanted_bytes) {
  if (!base.disk_map) return fail(Code::kDataLoss, "snapshot " + base.id.text() + " has no disk");
  STASIS_ASSIGN(BlockMap map, store.read_map(base.id, *base.disk_map));
  if (wanted_bytes == 0 || wanted_bytes == map.size()) return map;
  if (base.kind != SnapshotKind::kImage) {
    return fail(Code::kInvalidArgument, "the disk of a snapshot cannot be given another size");
  }
  return map.grow(wanted_bytes);
}

}  // namespace

Sandbox::Sandbox(SandboxConfig config, Path dir, snapshot::Store store, Event failure_event)
    : config_(std::move(config)),
      dir_(std::move(dir)),
      store_(std::move(store)),
      started_unix_ms_(unix_time_ms()),
      failure_event_(std::move(failure_event)) {}

Sandbox::~Sandbox() {
  // The VMM goes first: while it lives it may wait for the page server or the disk.
  shell_.vmm.reset();
  page_server_.reset();
}

Result<std::unique_ptr<Sandbox>> Sandbox::start(const SandboxConfig& config, const Path& dir,
                                                std::optional<Shell> spare) {
  snapshot::Store store = snapshot::Store::attach(real_file_system(), config.store);
  STASIS_ASSIGN(Event failure_event, Event::create());
  std::unique_ptr<Sandbox> sandbox(new Sandbox(config, dir, std::move(store), std::move(failure_event)));
  STASIS_TRY(sandbox->run(std::move(spare)));
  return sandbox;
}

Status Sandbox::run(std::optional<Shell> spare) {
  const Stopwatch watch;
  STASIS_TRY(spare ? open_and_take(std::move(*spare)) : open_and_put_up());
  STASIS_TRY(show_disk());
  Status started = base_.kind == SnapshotKind::kImage ? boot() : restore();
  if (!started) return fail(why_not_started(std::move(started).error()));
  vmm_ready_us_ = watch.microseconds();
  return {};
}

// What waits for the store, the kernel and the VMM's start goes on beside each other.
Status Sandbox::open_and_put_up() {
  auto surroundings = std::async(std::launch::async, make_surroundings);
  auto kvm = std::async(std::launch::async, has_kvm, config_.vmm);
  STASIS_TRY(open_base());
  shell_ = plan_shell({shape_, disk_base_->size(), config_.vmm}, dir_, kvm.get());
  const bool restores = base_.kind != SnapshotKind::kImage;
  auto way = std::async(restores ? std::launch::async : std::launch::deferred, [this] { return choose_way(); });
  STASIS_TRY(put_up(shell_, restores, [&] { return surroundings.get(); }));
  if (!restores) return {};
  STASIS_ASSIGN(restore_way_, way.get());
  return {};
}

Status Sandbox::open_and_take(Shell spare) {
  from_spare_ = true;
  STASIS_TRY(open_base());
  const SpareConfig needed{shape_, disk_base_->size(), config_.vmm};
  if (to_json(spare.config) != to_json(needed) || base_.kind == SnapshotKind::kImage) {
    return fail(Code::kFailedPrecondition, "the spare is of another shape");
  }
  shell_ = std::move(spare);
  STASIS_ASSIGN(restore_way_, choose_way());
  return {};
}

// Finds what the sandbox stands on, and writes down which layers it needs (memory.map, disk.map in its directory)
// before the store may collect again.
Status Sandbox::open_base() {
  STASIS_TRY_CONTEXT(find_base(), "open snapshot " + config_.base.text());
  return {};
}

Status Sandbox::find_base() {
  STASIS_ASSIGN(const snapshot::StoreLock lock, store_.lock_shared());
  STASIS_ASSIGN(base_, store_.load(config_.base));
  last_snapshot_ = base_.id;
  STASIS_ASSIGN(BlockMap disk_map, disk_map_of(store_, base_, config_.disk_bytes));
  STASIS_ASSIGN(disk_base_,
                open_and_keep(store_.fs(), dir_ / kDiskMapFile, store_.layers_dir(), std::move(disk_map), nullptr));
  if (base_.kind == SnapshotKind::kImage) {
    shape_ = config_.shape;
    STASIS_ASSIGN(BlockMap zeros, BlockMap::zeros(uint64_t{shape_.memory_mib} << 20));
    return stand_on(zeros);
  }
  shape_ = base_.machine;
  if (!base_.memory_map || !base_.vm_state) return fail(Code::kDataLoss, "the snapshot has no memory");
  STASIS_ASSIGN(const BlockMap memory_map, store_.read_map(base_.id, *base_.memory_map));
  return stand_on(memory_map);
}

// From now on memory is compared with `memory_map`, and its layers are kept by the sandbox's own record of it.
Status Sandbox::stand_on(const BlockMap& memory_map) {
  STASIS_ASSIGN(memory_,
                open_and_keep(store_.fs(), dir_ / kMemoryMapFile, store_.layers_dir(), memory_map, memory_.get()));
  return {};
}

// From here on the file of the shell's disk is the sandbox's own.
Status Sandbox::show_disk() {
  STASIS_TRY(store_.fs().make_directory(dir_ / "disk"));
  STASIS_ASSIGN(disk_, disk::CowDisk::create(store_.fs(), disk_base_, dir_ / "disk"));
  return shell_.disk_export->show(*disk_);
}

Status Sandbox::boot() {
  vmm::BootSpec spec;
  spec.vmlinux = store_.snapshot_dir(base_.id) / base_.vmlinux->file;
  spec.initrd = store_.snapshot_dir(base_.id) / base_.initrd->file;
  spec.command_line = kKernelCommandLine;
  if (config_.vmm == "firecracker") spec.command_line += kFirecrackerWords;
  return shell_.vmm->boot(spec);
}

// The device state is checked before the VMM sees it: a damaged one is reported, not loaded.
Result<RestoreWay> Sandbox::choose_way() const {
  STASIS_TRY(store_.read_part(base_.id, *base_.vm_state));
  return choose_restore_way(config_, store_, memory_, shell_.vmm->maps_one_file());
}

Status Sandbox::restore() {
  vmm::RestoreSpec spec;
  spec.state = store_.snapshot_dir(base_.id) / base_.vm_state->file;
  spec.saved_with.name = base_.vmm;
  spec.saved_with.version = base_.vmm_version;
  spec.saved_with.cpu_model = base_.cpu_model;
  spec.log = dir_ / kVmmLog;
  spec.mapped = restore_way_->mapped;
  spec.mapped_file = restore_way_->file;
  if (restore_way_->is_served()) STASIS_TRY(serve_pages(spec));
  STASIS_TRY(shell_.vmm->restore(spec));
  // It has loaded its device state, so it has its memory; if that is not ours (a library that could not be preloaded),
  // the guest would run on zeros.
  if (page_server_) STASIS_TRY(page_server_->await_handshake(Deadline::after(kHandOverDeadline)));
  return shell_.vmm->resume();
}

Status Sandbox::serve_pages(vmm::RestoreSpec& spec) {
  spec.uffd_socket = Path(kRuntimeDir) / "uffd.sock";
  STASIS_ASSIGN(page_server_, pager::PageServer::start(spec.uffd_socket, memory_, page_server_options()));
  spec.on_started = [this](pid_t pid) -> Status {
    STASIS_ASSIGN(UniqueFd pidfd, open_pidfd(pid));
    {
      const std::lock_guard lock(failure_mutex_);
      failing_vmm_ = std::move(pidfd);
    }
    return page_server_->expect_peer(pid);
  };
  return {};
}

// What earlier restores of this snapshot touched comes in ahead. While that is not known well enough this one writes
// down what it touches, and once there is something to compare with, nothing comes in ahead of it: what does causes no
// fault, so nobody would see whether it is needed.
pager::PageServerOptions Sandbox::page_server_options() {
  pager::PageServerOptions options;
  options.on_failure = [this](const Error& error) { page_server_failed(error); };
  options.load_bytes_per_second = uint64_t{config_.load_mib_per_s} << 20;
  if (restore_way_->mapped) options.served = restore_way_->mapped->served;
  auto set = snapshot::load_working_set(store_, base_.id);
  const bool fits = set && set->memory_size == memory_->size();
  const uint32_t restores = fits ? set->restores : 0;
  // A restore that does not see all has nothing to say about a set of one that did.
  const bool compares = restores > 0 && restores < kEnoughRestores && sees_all();
  records_ = restores == 0 || compares;
  if (records_) options.record_for = kRecordFor;
  if (fits) touched_ = std::move(set->entries);
  if (!compares) options.prefetch = snapshot::prefetch_ranges(touched_, snapshot::kMaxPrefetchBytes);
  came_ahead_ = !options.prefetch.empty();
  return options;
}

std::vector<snapshot::WorkingSetEntry> Sandbox::touched() const {
  if (!records_) return touched_;
  // What restores before it touched, this one may have touched (if it came in ahead) or not: it comes last.
  std::vector<snapshot::WorkingSetEntry> entries = page_server_->working_set();
  entries.insert(entries.end(), touched_.begin(), touched_.end());
  if (entries.size() > snapshot::kMaxWorkingSetEntries) entries.resize(snapshot::kMaxWorkingSetEntries);
  return entries;
}

void Sandbox::daemon_answers() {
  if (records_) page_server_->end_recording_after(kRecordAfterAnswer);
}

void Sandbox::keep_working_set() {
  snapshot::WorkingSet set{memory_->size(), 1, came_ahead_ ? touched() : page_server_->working_set()};
  records_ = false;
  const auto there = snapshot::load_working_set(store_, base_.id);
  const bool known = there && there->restores > 0 && there->memory_size == set.memory_size;
  // What both have touched is what the next one will touch. Of what came in ahead of this one (before another clone
  // kept its set) that is not known: it stays, and this restore does not count.
  if (known && sees_all()) {
    set = snapshot::intersect(*there, set);
    if (came_ahead_) set.restores = there->restores;
  }
  touched_ = set.entries;
  // What is touched of mapped memory nobody sees: what is known of the rest is a better guess and no more.
  if (known && !sees_all()) return;
  if (!sees_all()) set.restores = 0;
  // Only speed depends on it, and the snapshot may have been deleted meanwhile.
  (void)snapshot::keep_working_set(store_, base_.id, set);
}

// Runs on the page server's thread. A guest must not wait for pages that never come: its VMM ends now.
void Sandbox::page_server_failed(const Error& error) {
  const std::lock_guard lock(failure_mutex_);
  if (failing_vmm_) signal_pidfd(failing_vmm_.get(), SIGKILL);
  fail_guest(Error(error).with_context("memory of snapshot " + base_.id.text()), lock);
}

void Sandbox::fail_guest(Error why, const std::lock_guard<std::mutex>& /*of failure_mutex_*/) {
  if (!failure_) failure_ = std::move(why);
  failure_event_.set();
}

void Sandbox::end_guest(Error why) {
  const std::lock_guard lock(failure_mutex_);
  fail_guest(std::move(why), lock);
  signal_pidfd(vmm_pidfd(), SIGKILL);
}

void Sandbox::take_vmm_events() {
  if (Status taken = shell_.vmm->take_events(); !taken) end_guest(std::move(taken).error());
}

Error Sandbox::prefer_failure(const Error& error) {
  const std::lock_guard lock(failure_mutex_);
  return failure_ ? *failure_ : error;
}

// So that the next restore reads and checks every frame, and names the one that is damaged.
void Sandbox::distrust_mapped_layers() {
  const snapshot::VerifiedLayers verified(store_);
  for (const snapshot::Layer* layer : restore_way_->mapped->layers) verified.forget(layer->id());
}

// Nothing if that is not what has ended it.
std::optional<Error> Sandbox::lost_mapped_page(const std::string& end) {
  if (!restore_way_ || !restore_way_->mapped) return std::nullopt;
  const bool lost = end == kBusError || end == kBusErrorStatus;
  if (lost || end == kGaveUp) distrust_mapped_layers();
  if (!lost) return std::nullopt;
  return Error{Code::kDataLoss,
               "a page of a mapped layer of snapshot " + base_.id.text() + " could not be read from the store",
               "stasis snapshot verify"};
}

// The device state is loaded into mapped memory, too.
Error Sandbox::why_not_started(const Error& error) {
  if (auto lost = lost_mapped_page(shell_.vmm->stop())) return *std::move(lost);
  return prefer_failure(error);
}

Error Sandbox::end_of_vmm() {
  const std::string end = shell_.vmm->stop();
  if (auto broken = shell_.disk_export->failure())
    return std::move(*broken).with_context("disk on snapshot " + base_.id.text());
  if (auto lost = lost_mapped_page(end)) return *std::move(lost);
  if (end == "exit status 0") return prefer_failure({Code::kUnavailable, "the guest powered off"});
  return prefer_failure({Code::kUnavailable, with_last_words("the VMM ended by itself: " + end, dir_ / kVmmLog)});
}

StateReply Sandbox::state() const {
  StateReply reply;
  reply.sandbox_id = config_.sandbox_id;
  reply.state = "running";
  reply.base = config_.base;
  reply.shape = shape_;
  reply.disk_bytes = disk_->size();
  reply.vmm = shell_.vmm->info().name;
  reply.accelerator = shell_.vmm->info().accelerator;
  reply.guest_address = net::kGuestAddress.text();
  reply.supervisor_pid = ::getpid();
  reply.vmm_pid = shell_.vmm->pid();
  reply.started_unix_ms = started_unix_ms_;
  reply.vmm_ready_us = vmm_ready_us_;
  reply.disk_blocks_written = disk_->stats().blocks_written;
  if (restore_way_) {
    reply.restore_method = restore_way_->method();
    reply.restore_reason = restore_way_->reason;
    reply.spare = from_spare_;
    reply.total_pages = memory_->size() / kBlockSize;
    reply.resident_pages = shell_.vmm->guest_memory().resident_bytes / kBlockSize;
    if (restore_way_->mapped) {
      reply.mapped_bytes = restore_way_->mapped->mapped_bytes;
      reply.copied_bytes = restore_way_->mapped->copied_bytes;
    }
  }
  if (page_server_) {
    const pager::PageServerStats stats = page_server_->stats();
    reply.faults = stats.faults;
    reply.pages_by_fault = stats.pages_by_fault;
    reply.pages_around = stats.pages_around;
    reply.pages_prefetched = stats.pages_prefetched;
    reply.pages_zero = stats.pages_zero;
    const PagerReport report = pager_report();
    for (const auto& row : report.faults) reply.write_faults += row.kind == "write" ? row.count : 0;
    reply.fault_p50_us = service_quantile_us(report.service, 0.5);
    reply.fault_p99_us = service_quantile_us(report.service, 0.99);
  }
  return reply;
}

PagerReport Sandbox::pager_report() const {
  PagerReport report;
  if (page_server_) report = report_of(page_server_->activity());
  if (restore_way_ && restore_way_->mapped) add_to(report, report_of(*restore_way_->mapped), true);
  return report;
}

TraceReply Sandbox::trace() const {
  TraceReply reply;
  if (!restore_way_) return reply;
  reply.method = restore_way_->method();
  reply.reason = restore_way_->reason;
  reply.spare = from_spare_;
  reply.total_pages = memory_->size() / kBlockSize;
  reply.report = pager_report();
  if (page_server_) {
    add_load(reply, page_server_->load());
    add_timeline(reply, page_server_->timeline());
  }
  if (restore_way_->mapped) add_timeline(reply, *restore_way_->mapped);
  return reply;
}

}  // namespace stasis::supervisor
