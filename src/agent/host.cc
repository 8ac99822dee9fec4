#include "agent/host.h"

#include <algorithm>

#include "agent/roots.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"

namespace stasis::agent {
namespace {

constexpr Milliseconds kSocketDeadline{20'000};
// An agent that was killed while it forked a supervisor holds its lock, through the child, until that one has exec'ed.
constexpr Milliseconds kLockDeadline{2'000};
constexpr Milliseconds kLockPause{10};

Result<FileLock> lock_state(const Path& file) {
  const Deadline deadline = Deadline::after(kLockDeadline);
  for (;;) {
    auto lock = FileLock::try_exclusive(file);
    if (lock || lock.error().code != Code::kFailedPrecondition || deadline.passed()) return lock;
    std::this_thread::sleep_for(kLockPause);
  }
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
  auto lock = lock_state(options.state_dir / "agent.lock");
  if (!lock) return fail(std::move(lock).error().with_context("another agent uses this state directory"));
  STASIS_TRY(fs.make_directory(options.state_dir / "sandboxes"));
  STASIS_ASSIGN(snapshot::Store store, snapshot::Store::open(fs, options.state_dir / "store"));
  STASIS_ASSIGN(Tokens tokens, Tokens::open(options.state_dir / "tokens"));
  STASIS_ASSIGN(Event stop, Event::create());
  std::unique_ptr<Host> host(new Host(options, std::move(store), std::move(tokens), std::move(*lock), std::move(stop)));
  STASIS_ASSIGN(host->images_, load_images(host->store_, options.state_dir / "images.json", options.images));
  std::vector<snapshot::SnapshotId> image_ids;
  for (const auto& [name, image] : host->images_) image_ids.push_back(image.id);
  host->warm_bases_ = std::make_unique<WarmBases>(host->store_, options.state_dir / "warm.json", image_ids,
                                                  [root = host->store_.root()] { return disk_space(root); });
  STASIS_TRY(host->adopt_all());
  const auto sandboxes = host->list();
  const bool pausing = std::any_of(sandboxes.begin(), sandboxes.end(),
                                   [](const SandboxView& view) { return view.state == SandboxState::kPausing; });
  if (!pausing) host->tokens_.sweep([&](snapshot::SnapshotId id) { return host->is_published(id); });
  const auto roots = [raw = host.get()] { return sandbox_roots(raw->sandboxes_dir()); };
  const auto compacted = [raw = host.get()] { raw->collect_wanted_ = true; };
  STASIS_ASSIGN(host->compactor_, Compactor::start(host->store_, roots, compacted));
  STASIS_ASSIGN(host->scrubber_, Scrubber::start(host->store_, options.state_dir / "scrub.json"));
  SpareOptions spares;
  spares.dir = options.state_dir / "spares";
  spares.supervisor_program = options.supervisor_program;
  spares.vmm = options.vmm;
  spares.most = options.spares;
  STASIS_ASSIGN(host->spares_, Spares::start(std::move(spares)));
  host->watcher_ = std::thread([raw = host.get()] { raw->watch(); });
  return host;
}

void Host::stop() {
  stopping_ = true;
  stop_.set();
  if (compactor_) compactor_->stop();
  if (scrubber_) scrubber_->stop();
  if (spares_) spares_->stop();
  for (const SandboxPtr& sandbox : all()) {
    const std::lock_guard lock(sandbox->mutex);
    if (sandbox->client) sandbox->client->interrupt();
  }
}

Host::~Host() {
  stop();
  if (watcher_.joinable()) watcher_.join();
  endings_.clear();  // waits for them
  compactor_.reset();
  scrubber_.reset();
  spares_.reset();
  settling_.clear();  // waits for them
  for (const auto& [id, sandbox] : sandboxes_) {
    if (sandbox->child) sandbox->child->release();  // it outlives this agent
  }
}

Result<Host::SandboxPtr> Host::find(const std::string& id) const {
  const std::lock_guard lock(mutex_);
  const auto found = sandboxes_.find(id);
  if (found == sandboxes_.end()) return fail(Code::kNotFound, "there is no sandbox " + id + " on this host");
  return found->second;
}

std::vector<Host::SandboxPtr> Host::all() const {
  const std::lock_guard lock(mutex_);
  std::vector<SandboxPtr> sandboxes;
  sandboxes.reserve(sandboxes_.size());
  for (const auto& [id, sandbox] : sandboxes_) sandboxes.push_back(sandbox);
  return sandboxes;
}

void Host::forget(const SandboxPtr& sandbox) {
  const std::lock_guard lock(mutex_);
  const auto found = sandboxes_.find(sandbox->id);
  if (found != sandboxes_.end() && found->second == sandbox) sandboxes_.erase(found);
}

std::vector<SandboxView> Host::list() const {
  std::vector<SandboxView> views;
  for (const SandboxPtr& sandbox : all()) {
    const std::lock_guard lock(sandbox->mutex);
    views.push_back({sandbox->id, sandbox->state, sandbox->reason, sandbox->record.deadline_unix_ms, sandbox->adopted,
                     sandbox->info});
  }
  return views;
}

GuestClient Host::client_of(const SandboxPtr& sandbox) const {
  // A connection of its own for each socket: the control connection may be busy with a pause.
  const auto sockets = [dir = sandbox->dir](Transport transport) -> Result<GuestSocket> {
    STASIS_ASSIGN(const auto client, supervisor::Client::connect(dir));
    STASIS_ASSIGN(UniqueFd socket, client->guest_socket(transport, kSocketDeadline));
    STASIS_ASSIGN(UniqueFd ended, duplicate(client->pidfd()));
    return GuestSocket(std::move(socket), std::move(ended));
  };
  const std::lock_guard lock(sandbox->mutex);
  auto address = parse_ipv4(sandbox->info.guest_address);
  return GuestClient(sockets, address ? *address : Ipv4Address{}, sandbox->record.access_token, stop_.fd());
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

}  // namespace stasis::agent
