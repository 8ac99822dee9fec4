// Host: pause, snapshot, destroy, and what is given back afterwards.
#include <algorithm>

#include "agent/host.h"
#include "agent/roots.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"

namespace stasis::agent {
namespace {

using snapshot::SnapshotId;

constexpr Milliseconds kStopDeadline{5'000};
constexpr Milliseconds kEndDeadline{20'000};
constexpr Milliseconds kLastWords{500};

tl::unexpected<Error> busy(const std::string& id) {
  return fail(Code::kAborted, "another operation on sandbox " + id + " is under way",
              "wait for it, or destroy the sandbox");
}

}  // namespace

Error Host::explain(const SandboxPtr& sandbox, Error error) const {
  const bool consequence = error.code == Code::kUnavailable || error.code == Code::kDeadlineExceeded;
  if (!consequence || stopping_ || !sandbox->supervisor_pidfd) return error;
  auto gone = wait_readable(sandbox->supervisor_pidfd.get(), Deadline::after(kLastWords));
  if (!gone || !*gone) return error;
  const auto record = load_exit_record(sandbox->dir);
  if (!record) return {Code::kInternal, "the supervisor died: " + log_tail(sandbox->dir / supervisor::kSupervisorLog)};
  if (record->expected) return {Code::kUnavailable, record->reason};
  return record->error;
}

void Host::end_processes(const SandboxPtr& sandbox, const std::string& reason) {
  std::shared_ptr<supervisor::Client> client;
  {
    const std::lock_guard lock(sandbox->mutex);
    client = sandbox->client;
  }
  const bool asked = client && !supervisor_gone(*sandbox) && client->stop(reason, kStopDeadline);
  if (asked && await_end(*sandbox, Deadline::after(kStopDeadline))) return;
  kill_supervisor(*sandbox);
  if (await_end(*sandbox, Deadline::after(kEndDeadline))) return;
  spdlog::error("sandbox {}: its processes did not end within {} s of SIGKILL", sandbox->id,
                kEndDeadline.count() / 1000);
}

void Host::take_down(const SandboxPtr& sandbox, const std::string& reason) {
  end_processes(sandbox, reason);
  const auto exit = load_exit_record(sandbox->dir);
  pager_totals_.ended(sandbox.get(), exit ? exit->pager : std::nullopt);
  if (Status removed = remove_tree(real_file_system(), sandbox->dir); !removed) {
    spdlog::error("sandbox {}: {}", sandbox->id, removed.error().message);
  }
  forget(sandbox);
  collect_wanted_ = true;
}

Result<bool> Host::destroy(const std::string& id, const std::string& reason) {
  if (!is_sandbox_id(id)) return fail(Code::kInvalidArgument, "a sandbox id has 1 to 40 characters a-z and 0-9");
  const auto found = find(id);
  if (!found) return false;
  const SandboxPtr& sandbox = *found;
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
  const auto still = find(id);
  if (!still || *still != sandbox) return true;  // what was under way has removed it
  take_down(sandbox, reason.empty() ? "destroyed" : reason);
  (void)collect();
  return true;
}

bool Host::is_published(SnapshotId id) const {
  const auto manifest = store_.load(id);
  return manifest || manifest.error().code != Code::kNotFound;
}

Result<Taken> Host::describe(const supervisor::SnapshotReply& reply) const {
  STASIS_ASSIGN(const snapshot::StoreLock lock, store_.lock_shared());
  STASIS_ASSIGN(snapshot::Manifest manifest, store_.load(reply.id));
  STASIS_ASSIGN(const snapshot::BlockMap disk, store_.read_map(reply.id, *manifest.disk_map));
  return Taken{reply, std::move(manifest), disk.size()};
}

Result<supervisor::SnapshotReply> Host::take(const SandboxPtr& sandbox, SnapshotId id, bool keep_running) {
  if (is_published(id)) return fail(Code::kAlreadyExists, "there is a snapshot " + id.text() + " already");
  std::string token;
  {
    const std::lock_guard lock(sandbox->mutex);
    if (sandbox->destroyed) return destroyed_meanwhile(sandbox->id);
    if (sandbox->state != SandboxState::kRunning) {
      return fail(Code::kFailedPrecondition,
                  "sandbox " + sandbox->id + " is " + std::string(state_name(sandbox->state)) + ", not running");
    }
    token = sandbox->record.access_token;
    sandbox->writing.insert(id);
    if (!keep_running) sandbox->state = SandboxState::kPausing;
  }
  Result<supervisor::SnapshotReply> reply = [&]() -> Result<supervisor::SnapshotReply> {
    STASIS_TRY(tokens_.keep(id, token));
    return keep_running ? sandbox->client->snapshot(id, kSnapshotDeadline)
                        : sandbox->client->pause(id, kSnapshotDeadline);
  }();
  if (!reply) reply = after_failed_take(sandbox, id, std::move(reply).error());
  const std::lock_guard lock(sandbox->mutex);
  // After a deadline, or when this agent stops, the supervisor may still come to an end of it.
  const bool goes_on = !reply && (stopping_ || reply.error().code == Code::kDeadlineExceeded);
  if (!goes_on) sandbox->writing.erase(id);
  const bool runs_on = !reply && !stopping_ && !sandbox->destroyed;
  if (runs_on) sandbox->state = SandboxState::kRunning;  // if it is dead, the watcher sees it
  return reply;
}

// What is published counts: the answer may be lost and the snapshot there all the same.
Result<supervisor::SnapshotReply> Host::after_failed_take(const SandboxPtr& sandbox, SnapshotId id, Error error) {
  // The supervisor goes on without us, and the next agent finds what has become of it.
  if (stopping_) return fail(Code::kUnavailable, "the host agent stops; its sandboxes go on", "ask again in a moment");
  const auto wait = error.code == Code::kUnavailable ? kLastWords : Milliseconds(0);
  auto gone = wait_readable(sandbox->supervisor_pidfd.get(), Deadline::after(wait));
  if (gone && *gone) {
    if (auto manifest = store_.load(id)) return supervisor::SnapshotReply{id, manifest->memory, manifest->disk, 0, 0};
    tokens_.forget(id);
    return fail(explain(sandbox, std::move(error)));
  }
  if (error.code == Code::kDeadlineExceeded) {  // that has broken the connection
    if (auto again = supervisor::Client::connect(sandbox->dir)) {
      const std::lock_guard lock(sandbox->mutex);
      sandbox->client = std::move(*again);
    }
  } else {
    tokens_.forget(id);
  }
  return fail(std::move(error));
}

// A destroy that came meanwhile wins: then the snapshot must not stay either.
Status Host::yield_to_destroy(const SandboxPtr& sandbox, SnapshotId id) {
  {
    const std::lock_guard lock(sandbox->mutex);
    if (!sandbox->destroyed) return {};
  }
  if (is_published(id)) (void)store_.remove(id);
  tokens_.forget(id);
  return destroyed_meanwhile(sandbox->id);
}

Result<Taken> Host::pause(const std::string& id, SnapshotId snapshot) {
  STASIS_ASSIGN(const SandboxPtr sandbox, find(id));
  const std::unique_lock operation(sandbox->operation, std::try_to_lock);
  if (!operation) return busy(id);
  const auto reply = take(sandbox, snapshot, false);
  if (!reply && reply.error().code == Code::kAlreadyExists) return fail(reply.error());
  STASIS_TRY(yield_to_destroy(sandbox, snapshot));
  if (!reply) return fail(reply.error());
  Result<Taken> taken = describe(*reply);
  (void)await_end(*sandbox, Deadline::after(kStopDeadline));  // it ends by itself
  take_down(sandbox, "paused");
  return taken;
}

Result<Taken> Host::snapshot(const std::string& id, SnapshotId snapshot) {
  STASIS_ASSIGN(const SandboxPtr sandbox, find(id));
  const std::unique_lock operation(sandbox->operation, std::try_to_lock);
  if (!operation) return busy(id);
  const auto reply = take(sandbox, snapshot, true);
  if (reply) return describe(*reply);
  if (reply.error().code != Code::kAlreadyExists) STASIS_TRY(yield_to_destroy(sandbox, snapshot));
  return fail(reply.error());
}

// By a supervisor or an import; nobody knows what one of a former agent is at until it answers.
bool Host::may_be_written(SnapshotId id) const {
  {
    const std::lock_guard lock(mutex_);
    if (importing_.contains(id)) return true;
  }
  const auto sandboxes = all();
  return has_unsettled() || std::any_of(sandboxes.begin(), sandboxes.end(), [&](const SandboxPtr& sandbox) {
           const std::lock_guard lock(sandbox->mutex);
           return sandbox->writing.contains(id);
         });
}

Result<uint64_t> Host::delete_snapshot(SnapshotId id) {
  for (const auto& [name, image] : images_) {
    if (image.id == id) return fail(Code::kFailedPrecondition, "image '" + name + "' is in use by this host");
  }
  if (warm_bases_->contains(id)) return fail(Code::kNotFound, "there is no snapshot " + id.text());
  const bool unfinished = may_be_written(id);  // asked first: it may be published meanwhile
  const Status removed = store_.remove(id);
  if (!removed && removed.error().code == Code::kNotFound && unfinished) {
    return fail(Code::kAborted, "snapshot " + id.text() + " is not there yet and may still be being written",
                "delete it again in a moment");
  }
  STASIS_TRY(removed);
  tokens_.forget(id);
  collect_wanted_ = true;
  return collect();
}

uint64_t Host::collect() {
  if (!collect_wanted_.exchange(false)) return 0;
  auto collected =
      store_.collect_with([this] { return sandbox_roots(sandboxes_dir()); }, {.now_unix_ns = unix_time_ns()});
  if (collected) return collected->bytes_freed;
  collect_wanted_ = true;  // the watcher tries again
  if (collected.error().code != Code::kAborted) spdlog::error("collection: {}", collected.error().message);
  return 0;
}

}  // namespace stasis::agent
