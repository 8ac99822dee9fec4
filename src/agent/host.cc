#include "agent/host.h"

#include <algorithm>

#include "base/base64.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"

namespace stasis::agent {
namespace {

using nlohmann::json;
using snapshot::SnapshotId;
using snapshot::SnapshotKind;

// A boot under TCG takes 2.5 s on an idle machine; sixteen at once on two cores take half a minute.
constexpr Milliseconds kBootDeadline{120'000};
constexpr Milliseconds kRestoreDeadline{60'000};
constexpr Milliseconds kSupervisorDeadline{150'000};
constexpr Milliseconds kSocketDeadline{20'000};
// A pause of a large guest on a slow disk takes minutes: 64 GiB at 100 MB/s are eleven.
constexpr Milliseconds kSnapshotDeadline{30 * 60'000};
constexpr Milliseconds kStopDeadline{5'000};
constexpr Milliseconds kEndDeadline{20'000};
constexpr Milliseconds kHealthAttempt{300};
constexpr Milliseconds kHealthPause{5};
constexpr uint32_t kMaxVcpus = 32;
constexpr uint32_t kMinMemoryMib = 128;
constexpr uint32_t kMaxMemoryMib = 65'536;
constexpr size_t kMaxSandboxes = 1'000;
constexpr size_t kLogTail = 2'000;
constexpr uint64_t kMaxMapBytes = uint64_t{1} << 29;  // the largest block map that the format allows has 257 MiB

uint64_t microseconds_since(std::chrono::steady_clock::time_point start) {
  return static_cast<uint64_t>(
      std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - start).count());
}

bool valid_id(const std::string& id) {
  const auto plain = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); };
  return !id.empty() && id.size() <= 40 && std::all_of(id.begin(), id.end(), plain);
}

tl::unexpected<Error> destroyed_meanwhile(const std::string& id) {
  return fail(Code::kCancelled, "sandbox " + id + " was destroyed meanwhile");
}

std::string tail_of(const Path& file) {
  auto bytes = read_file(real_file_system(), file, uint64_t{64} << 20);
  if (!bytes) return "";
  const size_t skip = bytes->size() > kLogTail ? bytes->size() - kLogTail : 0;
  return std::string(reinterpret_cast<const char*>(bytes->data()) + skip, bytes->size() - skip);
}

std::string random_machine_id() {
  std::string text = Uuid::random().text();
  std::erase(text, '-');
  return text;
}

std::string random_entropy() {
  std::string bytes(64, '\0');
  fill_random(std::as_writable_bytes(std::span(bytes)));
  return base64_encode(bytes);
}

int64_t deadline_from(uint32_t timeout_sec) {
  return timeout_sec == 0 ? 0 : unix_time_ms() + int64_t{timeout_sec} * 1000;
}

}  // namespace

Host::Host(HostOptions options, snapshot::Store store, Tokens tokens, FileLock lock, Event stop)
    : options_(std::move(options)),
      store_(std::move(store)),
      tokens_(std::move(tokens)),
      lock_(std::move(lock)),
      stop_(std::move(stop)) {}

Result<std::unique_ptr<Host>> Host::open(const HostOptions& options) {
  FileSystem& fs = real_file_system();
  STASIS_TRY(fs.make_directory(options.state_dir));
  auto lock = FileLock::try_exclusive(options.state_dir / "agent.lock");
  if (!lock) return fail(std::move(lock).error().with_context("another agent uses this state directory"));
  STASIS_TRY(fs.make_directory(options.state_dir / "sandboxes"));
  STASIS_ASSIGN(snapshot::Store store, snapshot::Store::open(fs, options.state_dir / "store"));
  STASIS_ASSIGN(Tokens tokens, Tokens::open(options.state_dir / "tokens"));
  STASIS_ASSIGN(Event stop, Event::create());
  std::unique_ptr<Host> host(new Host(options, std::move(store), std::move(tokens), std::move(*lock), std::move(stop)));
  STASIS_ASSIGN(host->images_, load_images(host->store_, options.state_dir / "images.json", options.images));
  STASIS_TRY(host->adopt_all());
  host->watcher_ = std::thread([raw = host.get()] { raw->watch(); });
  return host;
}

Host::~Host() {
  stop_.set();
  if (watcher_.joinable()) watcher_.join();
  for (const auto& [id, sandbox] : sandboxes_) {
    if (sandbox->child) sandbox->child->release();  // it outlives this agent
  }
}

// --- finding
// -------------------------------------------------------------------------------------------------------------

Result<Host::SandboxPtr> Host::find(const std::string& id) const {
  const std::lock_guard lock(mutex_);
  const auto found = sandboxes_.find(id);
  if (found == sandboxes_.end()) return fail(Code::kNotFound, "there is no sandbox " + id + " on this host");
  return found->second;
}

void Host::forget(const SandboxPtr& sandbox) {
  const std::lock_guard lock(mutex_);
  sandboxes_.erase(sandbox->id);
}

std::vector<SandboxView> Host::list() const {
  std::vector<SandboxPtr> all;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [id, sandbox] : sandboxes_) all.push_back(sandbox);
  }
  std::vector<SandboxView> views;
  for (const SandboxPtr& sandbox : all) {
    const std::lock_guard lock(sandbox->mutex);
    views.push_back({sandbox->id, sandbox->state, sandbox->reason, sandbox->record.deadline_unix_ms, sandbox->adopted,
                     sandbox->info});
  }
  return views;
}

GuestClient Host::client_of(const SandboxPtr& sandbox) const {
  const std::lock_guard lock(sandbox->mutex);
  // A connection of its own for each socket: the control connection may be busy with a pause.
  const auto sockets = [dir = sandbox->dir]() -> Result<UniqueFd> {
    STASIS_ASSIGN(const auto client, supervisor::Client::connect(dir));
    return client->guest_socket(kSocketDeadline);
  };
  auto address = parse_ipv4(sandbox->info.guest_address);
  return GuestClient(sockets, address ? *address : Ipv4Address{}, sandbox->record.access_token);
}

Result<GuestClient> Host::guest(const std::string& id) const {
  STASIS_ASSIGN(const SandboxPtr sandbox, find(id));
  {
    const std::lock_guard lock(sandbox->mutex);
    if (sandbox->state != SandboxState::kRunning) {
      return fail(Code::kFailedPrecondition,
                  "sandbox " + id + " is " + std::string(state_name(sandbox->state)) + ", not running");
    }
  }
  return client_of(sandbox);
}

Result<supervisor::StateReply> Host::state(const std::string& id) const {
  STASIS_ASSIGN(const SandboxPtr sandbox, find(id));
  STASIS_ASSIGN(const auto client, supervisor::Client::connect(sandbox->dir));
  return client->state(kSocketDeadline);
}

Result<int64_t> Host::extend(const std::string& id, uint32_t timeout_sec) const {
  STASIS_ASSIGN(const SandboxPtr sandbox, find(id));
  const std::lock_guard lock(sandbox->mutex);
  SandboxRecord record = sandbox->record;
  record.deadline_unix_ms = deadline_from(timeout_sec);
  STASIS_TRY(save_record(sandbox->dir, record));
  sandbox->record = record;
  return record.deadline_unix_ms;
}

Result<int64_t> Host::deadline(const std::string& id) const {
  STASIS_ASSIGN(const SandboxPtr sandbox, find(id));
  const std::lock_guard lock(sandbox->mutex);
  return sandbox->record.deadline_unix_ms;
}

// --- starting
// ------------------------------------------------------------------------------------------------------------

Status Host::check(const StartSpec& spec) const {
  if (!valid_id(spec.id)) return fail(Code::kInvalidArgument, "a sandbox id has 1 to 40 characters a-z and 0-9");
  STASIS_ASSIGN(const snapshot::Manifest base, store_.load(spec.base));
  if (base.kind == SnapshotKind::kSnapshot) {
    const bool other = (spec.shape.vcpus != 0 && spec.shape.vcpus != base.machine.vcpus) ||
                       (spec.shape.memory_mib != 0 && spec.shape.memory_mib != base.machine.memory_mib);
    if (other) {
      return fail(Code::kInvalidArgument, "a sandbox made from a snapshot has the snapshot's vCPUs and memory",
                  "leave vcpus and memory out, or take a snapshot of a sandbox of the size you want");
    }
    if (base.vmm != options_.vmm) {
      return fail(Code::kFailedPrecondition,
                  "the snapshot was taken with " + base.vmm + ", this host runs " + options_.vmm);
    }
    return {};
  }
  if (spec.shape.vcpus < 1 || spec.shape.vcpus > kMaxVcpus)
    return fail(Code::kInvalidArgument, "vcpus must be 1 to 32");
  if (spec.shape.memory_mib < kMinMemoryMib || spec.shape.memory_mib > kMaxMemoryMib) {
    return fail(Code::kInvalidArgument, "memory must be 128 to 65536 MiB");
  }
  return {};
}

// Takes the id, and makes the directory with what the supervisor and a later agent need to know.
Result<Host::SandboxPtr> Host::enter(const StartSpec& spec) {
  auto sandbox = std::make_shared<Sandbox>(spec.id, options_.state_dir / "sandboxes" / spec.id);
  sandbox->state = spec.same_machine ? SandboxState::kResuming : SandboxState::kStarting;
  sandbox->record = spec.record;
  sandbox->record.deadline_unix_ms = deadline_from(spec.timeout_sec);
  sandbox->operation.lock();
  {
    const std::lock_guard lock(mutex_);
    const bool full = sandboxes_.size() >= kMaxSandboxes;
    if (full || !sandboxes_.emplace(spec.id, sandbox).second) {
      sandbox->operation.unlock();
      if (full)
        return fail(Code::kResourceExhausted, "this host runs 1000 sandboxes already",
                    "destroy some, or use another host");
      return fail(Code::kAlreadyExists, "there is a sandbox " + spec.id + " on this host already");
    }
  }
  const supervisor::SandboxConfig config{spec.id, store_.root(), spec.base, spec.shape, spec.disk_bytes, options_.vmm};
  const auto write = [&]() -> Status {
    STASIS_TRY(remove_tree(real_file_system(), sandbox->dir));
    STASIS_TRY(real_file_system().make_directory(sandbox->dir));
    STASIS_TRY(publish_file(real_file_system(), sandbox->dir / supervisor::kConfigFile, to_json(config).dump()));
    return save_record(sandbox->dir, sandbox->record);
  };
  if (Status written = write(); !written) {
    take_down(sandbox, "");
    sandbox->operation.unlock();
    return fail(std::move(written).error());
  }
  return sandbox;
}

Result<Started> Host::start(const StartSpec& spec) {
  STASIS_TRY(check(spec));
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
  STASIS_TRY(spawn_supervisor(sandbox));
  STASIS_TRY(connect_supervisor(sandbox));
  Started started;
  started.vmm_ready_us = microseconds_since(begun);
  const GuestClient guest = client_of(sandbox);
  const bool restored = !sandbox->info.restore_method.empty();
  STASIS_TRY(await_daemon(sandbox, guest, restored ? kRestoreDeadline : kBootDeadline));
  started.daemon_answered_us = microseconds_since(begun);
  STASIS_ASSIGN(started.info, sandbox->client->state(kSocketDeadline));
  STASIS_TRY(init_guest(spec, sandbox->record, guest));
  {
    const std::lock_guard lock(sandbox->mutex);
    sandbox->record.initialised = true;
    STASIS_TRY(save_record(sandbox->dir, sandbox->record));
  }
  started.total_us = microseconds_since(begun);
  return started;
}

Status Host::spawn_supervisor(const SandboxPtr& sandbox) {
  STASIS_ASSIGN(const UniqueFd log, open_append(sandbox->dir / "supervisor.log"));
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

// The socket is there within milliseconds; the first answer comes when the VMM runs the guest.
Status Host::connect_supervisor(const SandboxPtr& sandbox) {
  const Deadline deadline = Deadline::after(kSocketDeadline);
  for (;;) {
    auto client = supervisor::Client::connect(sandbox->dir);
    if (client) {
      const std::lock_guard lock(sandbox->mutex);
      sandbox->client = std::move(*client);
      break;
    }
    STASIS_ASSIGN(const bool gone, wait_readable(sandbox->supervisor_pidfd.get(), Deadline::after(Milliseconds(2))));
    if (gone) return fail(Code::kUnavailable, "the supervisor has gone");
    if (deadline.passed()) return fail(Code::kDeadlineExceeded, "the supervisor did not open its socket");
  }
  STASIS_ASSIGN(supervisor::StateReply info, sandbox->client->state(kSupervisorDeadline));
  const std::lock_guard lock(sandbox->mutex);
  if (auto pidfd = open_pidfd(info.vmm_pid)) sandbox->vmm_pidfd = std::move(*pidfd);
  sandbox->info = std::move(info);
  return {};
}

Status Host::await_daemon(const SandboxPtr& sandbox, const GuestClient& guest, Milliseconds limit) {
  const Deadline deadline = Deadline::after(limit);
  for (;;) {
    Status answered = guest.health(Deadline::after(kHealthAttempt));
    if (answered) return {};
    STASIS_ASSIGN(const bool gone, wait_readable(sandbox->supervisor_pidfd.get(), Deadline::after(kHealthPause)));
    if (gone) return fail(Code::kUnavailable, "the supervisor has gone");
    if (!deadline.passed()) continue;
    return fail(Code::kDeadlineExceeded,
                "the guest daemon did not answer within " + std::to_string(limit.count() / 1000) + " s (" +
                    answered.error().message + "); the console's last lines: " + tail_of(sandbox->dir / "vmm.log"),
                "check that the image was built by this version (make image)");
  }
}

Status Host::init_guest(const StartSpec& spec, const SandboxRecord& record, const GuestClient& guest) const {
  json own{{"entropy", random_entropy()}, {"sandboxId", spec.id}};
  if (!spec.same_machine) {
    own["machineId"] = random_machine_id();
    own["hostname"] = record.hostname.empty() ? spec.id : record.hostname;
  }
  if (const std::string previous = tokens_.find(spec.base); !previous.empty()) own["previousAccessToken"] = previous;
  json body{{"timestamp", rfc3339(unix_time_ns())}, {"envVars", record.env}, {"stasis", own}};
  if (!record.access_token.empty()) body["accessToken"] = record.access_token;
  return guest.init(body, Deadline::after(kRestoreDeadline));
}

// The reason behind an error that came because the supervisor has gone: what it wrote last.
Error Host::explain(const SandboxPtr& sandbox, Error error) const {
  const bool consequence = error.code == Code::kUnavailable || error.code == Code::kDeadlineExceeded;
  if (!consequence) return error;
  {
    const std::lock_guard lock(sandbox->mutex);
    auto gone = wait_readable(sandbox->supervisor_pidfd.get(), Deadline::after(Milliseconds(500)));
    if (!sandbox->supervisor_pidfd || !gone || !*gone) return error;
  }
  const auto record = load_exit_record(sandbox->dir);
  if (!record) return {Code::kInternal, "the supervisor died: " + tail_of(sandbox->dir / "supervisor.log")};
  if (record->expected) return {Code::kUnavailable, record->reason};
  return record->error;
}

// --- ending
// --------------------------------------------------------------------------------------------------------------

void Host::take_down(const SandboxPtr& sandbox, const std::string& reason) {
  std::shared_ptr<supervisor::Client> client;
  {
    const std::lock_guard lock(sandbox->mutex);
    client = sandbox->client;
  }
  if (client && !supervisor_gone(*sandbox)) (void)client->stop(reason, kStopDeadline);
  if (!await_end(*sandbox, Deadline::after(kStopDeadline))) {
    kill_supervisor(*sandbox);
    if (!await_end(*sandbox, Deadline::after(kEndDeadline))) {
      spdlog::error("sandbox {}: its processes did not end within {} s of SIGKILL", sandbox->id,
                    kEndDeadline.count() / 1000);
    }
  }
  if (Status removed = remove_tree(real_file_system(), sandbox->dir); !removed) {
    spdlog::error("sandbox {}: {}", sandbox->id, removed.error().message);
  }
  forget(sandbox);
  collect_wanted_ = true;
}

Result<bool> Host::destroy(const std::string& id, const std::string& reason) {
  if (!valid_id(id)) return fail(Code::kInvalidArgument, "a sandbox id has 1 to 40 characters a-z and 0-9");
  auto found = find(id);
  if (!found) return false;
  const SandboxPtr sandbox = *found;
  {
    const std::lock_guard lock(sandbox->mutex);
    sandbox->destroyed = true;
    sandbox->state = SandboxState::kStopping;
  }
  if (!sandbox->operation.try_lock()) {
    kill_supervisor(*sandbox);  // ends what is under way
    sandbox->operation.lock();
  }
  const std::lock_guard operation(sandbox->operation, std::adopt_lock);
  auto still = find(id);
  if (!still || *still != sandbox) return false;
  take_down(sandbox, reason.empty() ? "destroyed" : reason);
  collect();
  return true;
}

// --- snapshots
// -----------------------------------------------------------------------------------------------------------

Result<Taken> Host::describe(const supervisor::SnapshotReply& reply) const {
  STASIS_ASSIGN(snapshot::Manifest manifest, store_.load(reply.id));
  STASIS_ASSIGN(const snapshot::BlockMap disk, store_.read_map(reply.id, *manifest.disk_map));
  return Taken{reply, std::move(manifest), disk.size()};
}

Result<Taken> Host::take(const SandboxPtr& sandbox, SnapshotId id, bool keep_running) {
  {
    const std::lock_guard lock(sandbox->mutex);
    if (sandbox->state != SandboxState::kRunning) {
      return fail(Code::kFailedPrecondition,
                  "sandbox " + sandbox->id + " is " + std::string(state_name(sandbox->state)) + ", not running");
    }
    if (!keep_running) sandbox->state = SandboxState::kPausing;
  }
  STASIS_TRY(tokens_.keep(id, sandbox->record.access_token));
  auto reply =
      keep_running ? sandbox->client->snapshot(id, kSnapshotDeadline) : sandbox->client->pause(id, kSnapshotDeadline);
  if (reply) return describe(*reply);
  // The answer may be lost and the snapshot there all the same: what is published counts.
  if (!keep_running && supervisor_gone(*sandbox)) {
    if (auto manifest = store_.load(id)) return describe({id, manifest->memory, manifest->disk, 0, 0});
  }
  tokens_.forget(id);
  const bool destroyed = [&] {
    const std::lock_guard lock(sandbox->mutex);
    if (!sandbox->destroyed) sandbox->state = SandboxState::kRunning;  // if it has died, the watcher sees it
    return sandbox->destroyed;
  }();
  if (destroyed) return destroyed_meanwhile(sandbox->id);
  return fail(explain(sandbox, std::move(reply).error()));
}

Result<Taken> Host::pause(const std::string& id, SnapshotId snapshot) {
  STASIS_ASSIGN(const SandboxPtr sandbox, find(id));
  const std::unique_lock operation(sandbox->operation, std::try_to_lock);
  if (!operation) return fail(Code::kAborted, "another operation on sandbox " + id + " is under way");
  Result<Taken> taken = take(sandbox, snapshot, false);
  if (!taken) return taken;
  take_down(sandbox, "paused");
  return taken;
}

Result<Taken> Host::snapshot(const std::string& id, SnapshotId snapshot) {
  STASIS_ASSIGN(const SandboxPtr sandbox, find(id));
  const std::unique_lock operation(sandbox->operation, std::try_to_lock);
  if (!operation) return fail(Code::kAborted, "another operation on sandbox " + id + " is under way");
  return take(sandbox, snapshot, true);
}

Result<uint64_t> Host::delete_snapshot(SnapshotId id) {
  for (const auto& [name, image] : images_) {
    if (image.id == id) return fail(Code::kFailedPrecondition, "image '" + name + "' is in use by this host");
  }
  STASIS_TRY(store_.remove(id));
  tokens_.forget(id);
  collect_wanted_ = true;
  return collect();
}

// The block maps that sandboxes stand on. A file that cannot be read, other than because it is not there (yet, or any
// more), stops the collection: its layers would be taken for rubbish.
Result<std::vector<snapshot::BlockMap>> Host::roots() const {
  std::vector<snapshot::BlockMap> roots;
  const Path sandboxes = options_.state_dir / "sandboxes";
  STASIS_ASSIGN(const auto names, real_file_system().list(sandboxes));
  for (const std::string& name : names) {
    for (const char* file : {supervisor::kMemoryMapFile, supervisor::kDiskMapFile}) {
      auto bytes = read_file(real_file_system(), sandboxes / name / file, kMaxMapBytes);
      if (!bytes && bytes.error().code == Code::kNotFound) continue;
      if (!bytes) return fail(std::move(bytes).error());
      auto map = snapshot::BlockMap::decode(*bytes);
      if (!map) return fail(std::move(map).error().with_context((sandboxes / name / file).string()));
      roots.push_back(std::move(*map));
    }
  }
  return roots;
}

// Layers that nothing needs go. The roots are read under the store's exclusive lock: a sandbox that starts writes its
// own down under the shared one.
uint64_t Host::collect() {
  if (!collect_wanted_.exchange(false)) return 0;
  auto collected = store_.collect_with([this] { return roots(); });
  if (collected) return collected->bytes_freed;
  if (collected.error().code == Code::kAborted) {
    collect_wanted_ = true;  // somebody writes: later
  } else {
    spdlog::error("collection: {}", collected.error().message);
  }
  return 0;
}

// --- what happens by itself
// ------------------------------------------------------------------------------------------------

Status Host::adopt_all() {
  STASIS_ASSIGN(const auto names, real_file_system().list(options_.state_dir / "sandboxes"));
  for (const std::string& name : names) adopt(name);
  return {};
}

// A directory that a former agent left: its supervisor runs, or has ended on request, or has died.
void Host::adopt(const std::string& id) {
  auto sandbox = std::make_shared<Sandbox>(id, options_.state_dir / "sandboxes" / id);
  sandbox->adopted = true;
  auto record = load_record(sandbox->dir);
  if (record) sandbox->record = std::move(*record);
  auto client = supervisor::Client::connect(sandbox->dir);
  if (client) {
    if (auto pidfd = open_pidfd((*client)->pid())) sandbox->supervisor_pidfd = std::move(*pidfd);
    sandbox->client = std::move(*client);
    auto info = sandbox->client->state(kSupervisorDeadline);
    if (info) {
      if (auto pidfd = open_pidfd(info->vmm_pid)) sandbox->vmm_pidfd = std::move(*pidfd);
      sandbox->info = std::move(*info);
      sandbox->state = SandboxState::kRunning;
    }
    if (!info || !record || !sandbox->record.initialised) {
      spdlog::warn("sandbox {}: its start was interrupted; it is ended", id);
      take_down(sandbox, "its start was interrupted");
      return;
    }
    spdlog::info("sandbox {}: adopted", id);
  } else {
    const auto exit = load_exit_record(sandbox->dir);
    const bool timed_out = exit && exit->reason == "stopped: timeout";  // its end is yet to be told
    if (!record || !sandbox->record.initialised || (exit && exit->expected && !timed_out)) {
      take_down(sandbox, "");
      return;
    }
    sandbox->state = SandboxState::kDead;
    sandbox->reason = timed_out ? "timeout" : exit ? exit->reason : "the supervisor died while no agent was there";
  }
  const std::lock_guard lock(mutex_);
  sandboxes_.emplace(id, std::move(sandbox));
}

void Host::watch() {
  for (;;) {
    auto stopped = wait_readable(stop_.fd(), Deadline::after(Milliseconds(100)));
    if (!stopped || *stopped) return;
    std::vector<SandboxPtr> all;
    {
      const std::lock_guard lock(mutex_);
      for (const auto& [id, sandbox] : sandboxes_) all.push_back(sandbox);
    }
    for (const SandboxPtr& sandbox : all) watch_one(sandbox);
    collect();
  }
}

void Host::watch_one(const SandboxPtr& sandbox) {
  const std::unique_lock operation(sandbox->operation, std::try_to_lock);
  if (!operation) return;  // whoever holds it sees what happens
  {
    const std::lock_guard lock(sandbox->mutex);
    if (sandbox->state != SandboxState::kRunning) return;
  }
  if (supervisor_gone(*sandbox)) {
    (void)await_end(*sandbox, Deadline::after(kStopDeadline));
    const auto exit = load_exit_record(sandbox->dir);
    const std::lock_guard lock(sandbox->mutex);
    sandbox->state = SandboxState::kDead;
    sandbox->reason = exit ? exit->reason : "the supervisor was killed";
    spdlog::warn("sandbox {}: {}", sandbox->id, sandbox->reason);
    return;
  }
  const int64_t deadline = [&] {
    const std::lock_guard lock(sandbox->mutex);
    return sandbox->record.deadline_unix_ms;
  }();
  if (deadline == 0 || unix_time_ms() < deadline) return;
  (void)sandbox->client->stop("timeout", kStopDeadline);
  if (!await_end(*sandbox, Deadline::after(kStopDeadline))) {
    kill_supervisor(*sandbox);
    (void)await_end(*sandbox, Deadline::after(kEndDeadline));
  }
  const std::lock_guard lock(sandbox->mutex);
  sandbox->state = SandboxState::kDead;
  sandbox->reason = "timeout";
}

}  // namespace stasis::agent
