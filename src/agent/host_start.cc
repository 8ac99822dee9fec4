// Host: from a request to a running sandbox.
#include <algorithm>

#include "agent/host.h"
#include "agent/identity.h"
#include "base/file.h"
#include "base/log.h"
#include "vmm/identity.h"

namespace stasis::agent {
namespace {

using snapshot::SnapshotKind;

// A boot under TCG takes 2.5 s on an idle machine; sixteen at once on two cores take half a minute.
constexpr Milliseconds kBootDeadline{120'000};
constexpr Milliseconds kRestoreDeadline{60'000};
constexpr Milliseconds kSupervisorDeadline{150'000};
constexpr Milliseconds kSocketDeadline{20'000};
// A spare reads a file and moves three.
constexpr Milliseconds kBecomeDeadline{2'000};
constexpr Milliseconds kEndDeadline{20'000};
constexpr const char* kNobody = "rehearsal00000000000";
constexpr Milliseconds kRehearsal{5'000};
constexpr Milliseconds kHealthAttempt{300};
constexpr Milliseconds kHealthPause{5};
// Until then a guest that says nothing is taken for one that has no network yet: as long as it is asked over HTTP,
// which it cannot hear either, nobody would notice that it has come up (0.3 s of a boot of 1.7).
constexpr Milliseconds kPatience{2'000};
constexpr uint32_t kMaxVcpus = 32;
constexpr uint32_t kMinMemoryMib = 128;
constexpr uint32_t kMaxMemoryMib = 65'536;
constexpr uint64_t kMaxDiskBytes = uint64_t{16} << 40;
constexpr size_t kMaxSandboxes = 1'000;

uint64_t microseconds_since(std::chrono::steady_clock::time_point start) {
  return static_cast<uint64_t>(
      std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - start).count());
}

// Not: that the sandbox was destroyed, that its id is in use, or that the host is full.
bool is_restore_failure(const Error& error) {
  return error.code != Code::kCancelled && error.code != Code::kAlreadyExists && error.code != Code::kResourceExhausted;
}

Status check_image_shape(const StartSpec& spec) {
  if (spec.same_machine) return fail(Code::kInvalidArgument, "an image cannot be resumed: create a sandbox from it");
  if (spec.shape.vcpus < 1 || spec.shape.vcpus > kMaxVcpus)
    return fail(Code::kInvalidArgument, "vcpus must be 1 to 32");
  if (spec.shape.memory_mib < kMinMemoryMib || spec.shape.memory_mib > kMaxMemoryMib) {
    return fail(Code::kInvalidArgument, "memory must be 128 to 65536 MiB");
  }
  if (spec.disk_bytes > kMaxDiskBytes) return fail(Code::kInvalidArgument, "a disk has at most 16 TiB");
  return {};
}

}  // namespace

Status Host::check(const StartSpec& spec) const {
  if (stopping_) return fail(Code::kUnavailable, "the host agent stops", "ask again in a moment");
  if (!is_sandbox_id(spec.id)) return fail(Code::kInvalidArgument, "a sandbox id has 1 to 40 characters a-z and 0-9");
  STASIS_TRY(check_record(spec.record));
  STASIS_TRY(supervisor::check_restore(spec.restore, spec.load_mib_per_s));
  STASIS_ASSIGN(const snapshot::Manifest base, store_.load(spec.base));
  if (base.kind != SnapshotKind::kSnapshot) return check_image_shape(spec);
  const bool other = (spec.shape.vcpus != 0 && spec.shape.vcpus != base.machine.vcpus) ||
                     (spec.shape.memory_mib != 0 && spec.shape.memory_mib != base.machine.memory_mib);
  if (other) {
    return fail(Code::kInvalidArgument, "a sandbox made from a snapshot has the snapshot's vCPUs and memory",
                "leave vcpus and memory out, or take a snapshot of a sandbox of the size you want");
  }
  if (spec.disk_bytes != 0) {
    return fail(Code::kInvalidArgument, "a sandbox made from a snapshot has the snapshot's disk",
                "leave the disk size out");
  }
  if (base.vmm != options_.vmm) {
    return fail(Code::kFailedPrecondition,
                "the snapshot was taken with " + base.vmm + ", this host runs " + options_.vmm);
  }
  return {};
}

// Takes the id, and makes the directory with what the supervisor and a later agent need to know.
Result<Host::SandboxPtr> Host::enter(const StartSpec& spec) {
  auto sandbox = std::make_shared<Sandbox>(spec.id, sandboxes_dir() / spec.id);
  sandbox->state = spec.same_machine ? SandboxState::kResuming : SandboxState::kStarting;
  sandbox->record = spec.record;
  sandbox->record.initialised = false;
  sandbox->record.deadline_unix_ms = deadline_from(spec.timeout_sec);
  sandbox->info.sandbox_id = spec.id;
  sandbox->info.base = spec.base;
  sandbox->info.shape = spec.shape;
  sandbox->operation.lock();
  {
    const std::lock_guard lock(mutex_);
    const bool full = sandboxes_.size() >= kMaxSandboxes;
    if (full || !sandboxes_.emplace(spec.id, sandbox).second) {
      sandbox->operation.unlock();
      if (full) {
        return fail(Code::kResourceExhausted, "this host holds 1000 sandboxes already",
                    "destroy some, or use another host");
      }
      return fail(Code::kAlreadyExists, "there is a sandbox " + spec.id + " on this host already");
    }
  }
  pager_totals_.began(sandbox.get());
  if (Status made = make_directory(sandbox, spec); !made) {
    take_down(sandbox, "");
    sandbox->operation.unlock();
    return fail(std::move(made).error());
  }
  return sandbox;
}

Status Host::make_directory(const SandboxPtr& sandbox, const StartSpec& spec) const {
  FileSystem& fs = real_file_system();
  STASIS_TRY(remove_tree(fs, sandbox->dir));
  STASIS_TRY(fs.make_directory(sandbox->dir));
  const supervisor::SandboxConfig config{spec.id,         store_.root(), spec.base,    spec.shape,
                                         spec.disk_bytes, options_.vmm,  spec.restore, spec.load_mib_per_s};
  STASIS_TRY(replace_file(fs, sandbox->dir / supervisor::kConfigFile, to_json(config).dump()));
  return save_record(sandbox->dir, sandbox->record);
}

namespace {

// The image's own size, asked for by number, is no other disk.
uint64_t disk_in_key(const snapshot::Store& store, const StartSpec& spec) {
  if (spec.disk_bytes == 0) return 0;
  const auto image = store.load(spec.base);
  if (!image || !image->disk_map) return spec.disk_bytes;
  const auto disk = store.read_map_metadata(image->id, *image->disk_map);
  return disk && disk->size == spec.disk_bytes ? 0 : spec.disk_bytes;
}

WarmKey warm_key(const snapshot::Store& store, const StartSpec& spec, const std::string& vmm) {
  return {spec.base, spec.shape.vcpus, spec.shape.memory_mib, disk_in_key(store, spec), vmm::vmm_identity(vmm)};
}

// Has the guest do once what every sandbox made of it does first: it takes an identity and runs a program. What it
// reads of its disk for that is in its page cache then: a create is 55 ms shorter, the first command 30 (QEMU under
// TCG). What is left of it is overwritten by the identity that each gets, in place, if its name is as long as a
// sandbox's id. What fails here may fail: an image need not have a shell.
void rehearse(const GuestClient& guest) {
  (void)guest.init(init_body({kNobody, false, ""}, {}), Deadline::after(kRestoreDeadline));
  Command command;
  command.program = "/bin/sh";
  command.args = {"-c", ":"};
  const auto over = readable_after(kRehearsal);  // whatever the image has as its shell
  if (over) (void)guest.run(command, {}, over->get());
}

}  // namespace

std::optional<StartSpec> Host::warm_spec(const StartSpec& spec) {
  if (spec.cold || !options_.warm_bases) return std::nullopt;
  const auto base = warm_bases_->find(warm_key(store_, spec, options_.vmm));
  if (!base) return std::nullopt;
  StartSpec warm = spec;
  warm.base = *base;
  warm.shape = {};
  warm.disk_bytes = 0;
  return warm;
}

// The first sandbox of a shape pays for it by a fraction of a second, where its boot took some.
void Host::make_warm_base(const SandboxPtr& sandbox, const StartSpec& spec, const GuestClient& guest) {
  if (spec.cold || !options_.warm_bases) return;
  const WarmKey key = warm_key(store_, spec, options_.vmm);
  const auto id = warm_bases_->begin(key);
  collect_wanted_ = true;  // others may have made room for it, and again once it is there
  if (!id) return;
  rehearse(guest);
  const auto taken = sandbox->client->snapshot(*id, kSnapshotDeadline);
  // Not done when this agent stops: the supervisor may finish it yet, and the next agent sees.
  if (taken || !stopping_) warm_bases_->done(key, taken.has_value());
  collect_wanted_ = true;
  if (!taken) spdlog::warn("sandbox {}: no warm base could be made of it: {}", sandbox->id, taken.error().message);
}

Result<Started> Host::start(const StartSpec& spec) {
  STASIS_TRY(check(spec));
  const auto warm = warm_spec(spec);
  if (!warm) return start_checked(spec);
  auto started = start_checked(*warm);
  if (started || !is_restore_failure(started.error()) || stopping_) return started;
  // It may be that the warm base is fine and only cannot be mapped.
  if (spec.restore == supervisor::kRestoreMapped && started.error().code == Code::kFailedPrecondition) return started;
  spdlog::warn("sandbox {}: the warm base does not restore, the image is booted: {}", spec.id, started.error().message);
  warm_bases_->drop(warm_key(store_, spec, options_.vmm));
  collect_wanted_ = true;
  return start_checked(spec);
}

Result<Started> Host::start_checked(const StartSpec& spec) {
  STASIS_ASSIGN(const SandboxPtr sandbox, enter(spec));
  const std::lock_guard operation(sandbox->operation, std::adopt_lock);
  Result<Started> started = bring_up(sandbox, spec);
  const bool destroyed = [&] {
    const std::lock_guard lock(sandbox->mutex);
    if (started && !sandbox->destroyed) sandbox->state = SandboxState::kRunning;
    return sandbox->destroyed;
  }();
  if (destroyed) return destroyed_meanwhile(spec.id);  // whoever destroys it waits for us, and cleans up
  if (started) return started;
  Error error = explain(sandbox, std::move(started).error());
  take_down(sandbox, "start failed");
  return fail(std::move(error));
}

Result<Started> Host::bring_up(const SandboxPtr& sandbox, const StartSpec& spec) {
  const auto begun = std::chrono::steady_clock::now();
  const Spares::Quiet quiet(*spares_);
  STASIS_ASSIGN(const bool spare, use_spare(sandbox, spec));
  if (!spare) {
    STASIS_TRY(spawn_supervisor(sandbox));
    STASIS_TRY(connect_supervisor(sandbox));
  }
  Started started;
  started.vmm_ready_us = microseconds_since(begun);
  const GuestClient guest = client_of(sandbox);
  const bool restored = !sandbox->info.restore_method.empty();
  STASIS_ASSIGN(std::optional<GuestContact> daemon,
                await_daemon(sandbox, guest, restored ? kRestoreDeadline : kBootDeadline));
  started.daemon_answered_us = microseconds_since(begun);
  STASIS_ASSIGN(started.info, sandbox->client->state_when_answered(kSocketDeadline));
  if (!restored) {
    daemon.reset();  // what is restored from the warm base later has no use for it
    make_warm_base(sandbox, spec, guest);
  }
  STASIS_TRY(guest.init(init_body({spec.id, spec.same_machine, tokens_.find(spec.base)}, spec.record),
                        Deadline::after(kRestoreDeadline), std::move(daemon)));
  {
    const std::lock_guard lock(sandbox->mutex);
    sandbox->record.initialised = true;
    STASIS_TRY(save_record(sandbox->dir, sandbox->record));
  }
  started.total_us = microseconds_since(begun);
  compactor_->count_start(spec.base);
  if (restored) spares_->want({started.info.shape, started.info.disk_bytes});
  return started;
}

std::optional<SpareShape> Host::shape_of(const StartSpec& spec) const {
  const auto base = store_.load(spec.base);
  if (!base || base->kind != SnapshotKind::kSnapshot || !base->disk_map) return std::nullopt;
  const auto disk = store_.read_map_metadata(base->id, *base->disk_map);
  if (!disk) return std::nullopt;
  return SpareShape{base->machine, disk->size};
}

// A spare only saves time: whatever is wrong with it, the sandbox gets a supervisor of its own, which says the same if
// it is not the spare's fault.
Result<bool> Host::use_spare(const SandboxPtr& sandbox, const StartSpec& spec) {
  const auto shape = spares_->empty() ? std::nullopt : shape_of(spec);
  const auto spare = shape ? spares_->take(*shape) : nullptr;
  if (!spare) return false;
  const Status used = become(sandbox, *spare);
  spares_->count(used.has_value());
  if (used) return true;
  kill_supervisor(*sandbox);
  const bool gone = await_end(*sandbox, Deadline::after(kEndDeadline));
  if (stopping_ || !gone) return fail(used.error());
  {
    const std::lock_guard lock(sandbox->mutex);
    if (sandbox->destroyed) return destroyed_meanwhile(sandbox->id);
    sandbox->client.reset();
    sandbox->child.reset();
    sandbox->supervisor_pidfd.reset();
    sandbox->vmm_pidfd.reset();
  }
  spdlog::info("sandbox {}: a spare did not become it: {}", sandbox->id, used.error().message);
  STASIS_TRY(make_directory(sandbox, spec));
  return false;
}

Status Host::become(const SandboxPtr& sandbox, Spare& spare) const {
  {
    const std::lock_guard lock(sandbox->mutex);
    if (sandbox->destroyed) return destroyed_meanwhile(sandbox->id);
    STASIS_ASSIGN(sandbox->supervisor_pidfd, open_pidfd(spare.process->pid()));
    sandbox->child = std::move(*spare.process);
    spare.process.reset();
    sandbox->client = spare.client;
  }
  STASIS_TRY(spare.client->become(sandbox->dir, kBecomeDeadline));
  return await_vmm(sandbox, spare.client);
}

Status Host::spawn_supervisor(const SandboxPtr& sandbox) {
  STASIS_ASSIGN(const UniqueFd log, open_append(sandbox->dir / supervisor::kSupervisorLog));
  SpawnOptions options;
  options.argv = {options_.supervisor_program.string(), "--sandbox-dir", sandbox->dir.string()};
  options.stdout_fd = log.get();
  options.stderr_fd = log.get();
  options.new_session = true;
  const std::lock_guard lock(sandbox->mutex);
  if (sandbox->destroyed) return destroyed_meanwhile(sandbox->id);
  STASIS_ASSIGN(sandbox->child, spawn(options));
  STASIS_ASSIGN(sandbox->supervisor_pidfd, open_pidfd(sandbox->child->pid()));
  return {};
}

// The socket is there within milliseconds.
Result<std::shared_ptr<supervisor::Client>> Host::await_socket(const SandboxPtr& sandbox) const {
  const Deadline deadline = Deadline::after(kSocketDeadline);
  for (;;) {
    if (auto client = supervisor::Client::connect(sandbox->dir)) return std::shared_ptr(std::move(*client));
    STASIS_ASSIGN(const bool gone, wait_readable(sandbox->supervisor_pidfd.get(), Deadline::after(Milliseconds(2))));
    if (gone) return fail(Code::kUnavailable, "the supervisor has gone");
    if (stopping_) return fail(Code::kUnavailable, "the host agent stops");
    if (deadline.passed()) return fail(Code::kDeadlineExceeded, "the supervisor did not open its socket");
  }
}

Status Host::connect_supervisor(const SandboxPtr& sandbox) {
  STASIS_ASSIGN(const auto client, await_socket(sandbox));
  {
    const std::lock_guard lock(sandbox->mutex);
    sandbox->client = client;
  }
  return await_vmm(sandbox, client);
}

// The first answer comes when the VMM runs the guest.
Status Host::await_vmm(const SandboxPtr& sandbox, const std::shared_ptr<supervisor::Client>& client) const {
  if (stopping_) return fail(Code::kUnavailable, "the host agent stops");  // stop() may have come just before
  STASIS_ASSIGN(supervisor::StateReply info, client->state(kSupervisorDeadline));
  const std::lock_guard lock(sandbox->mutex);
  if (auto pidfd = open_pidfd(info.vmm_pid)) sandbox->vmm_pidfd = std::move(*pidfd);
  sandbox->info = std::move(info);
  return {};
}

Result<GuestContact> Host::await_daemon(const SandboxPtr& sandbox, const GuestClient& guest, Milliseconds limit) const {
  const Deadline deadline = Deadline::after(limit);
  const Deadline patience = Deadline::after(kPatience);
  for (;;) {
    auto answered = guest.greet(kHealthAttempt, !patience.passed());
    if (answered) return answered;
    STASIS_ASSIGN(const bool gone, wait_readable(sandbox->supervisor_pidfd.get(), Deadline::after(kHealthPause)));
    if (gone) return fail(Code::kUnavailable, "the supervisor has gone");
    if (stopping_) return fail(Code::kUnavailable, "the host agent stops");
    if (!deadline.passed()) continue;
    return fail(Code::kDeadlineExceeded,
                "the guest daemon did not answer within " + std::to_string(limit.count() / 1000) + " s (" +
                    answered.error().message +
                    "); the console's last lines: " + log_tail(sandbox->dir / supervisor::kVmmLog),
                "check that the image was built by this version (make image)");
  }
}

}  // namespace stasis::agent
