// The lifecycle operations of the control plane: each decides by compare-and-set who may, calls the agent, and writes
// what came of it unless somebody (a destroy) was faster. An operation that fails leaves the row in a true state: what
// the host says if it can be asked, else under way, for the reconciler. Thread-safe; calls block until the agent is
// done.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "server/active_operations.h"
#include "server/settler.h"
#include "server/store.h"

namespace stasis::server {

// How memory comes back.
struct RestoreOptions {
  std::string way;              // "uffd", "mapped"; empty: the best that is possible
  uint32_t load_mib_per_s = 0;  // all of it in the background, so fast at most; 0: only what is touched
};

struct CreateRequest {
  std::string template_name = "base";
  std::optional<uint32_t> vcpus;
  std::optional<uint32_t> memory_mb;
  std::optional<uint32_t> disk_mb;
  bool cold = false;
  RestoreOptions restore;
  uint32_t timeout_sec = 0;
  Json metadata = Json::object();  // strings
  Json env = Json::object();       // strings
};

// A client's Idempotency-Key and the request it was sent with, as canonical text.
struct IdempotencyKey {
  std::string key;
  std::string request;
};

struct CreateOutcome {
  SandboxRecord sandbox;
  bool repeated = false;      // an earlier request with the same key made it
  bool key_mismatch = false;  // the key was used for another request; `sandbox` is empty
};

struct SnapshotRequest {
  std::string sandbox_id;
  std::string name;
  bool overwrite = false;
};

struct RollbackRequest {
  std::string snapshot;  // its name
  std::optional<uint32_t> timeout_sec;
  RestoreOptions restore;
};

inline constexpr uint32_t kMaxLoadMibPerS = 65'536;
inline constexpr uint32_t kMaxTimeoutSec = 366 * 24 * 3600;

// ^[a-z0-9][a-z0-9._-]{0,62}$ without "..".
bool valid_name(std::string_view name);

class Operations {
 public:
  // `wake_reconciler` is called when a row was left for it.
  Operations(Store& store, HostAgentApi& agent, ActiveOperations& active, Settler& settler,
             std::function<void()> wake_reconciler)
      : store_(store), agent_(agent), active_(active), settler_(settler), wake_(std::move(wake_reconciler)) {}

  Result<CreateOutcome> create(const CreateRequest& request, const std::optional<IdempotencyKey>& key);
  Result<SandboxRecord> pause(const std::string& id);
  Result<SandboxRecord> resume(const std::string& id, std::optional<uint32_t> timeout_sec,
                               const RestoreOptions& options);
  // The sandbox as it was when `request.snapshot` was taken of it, under the same id. What it is now is kept until that
  // has come back: if it does not, the sandbox is paused as it was.
  Result<SandboxRecord> rollback(const std::string& id, const RollbackRequest& request);
  // Success if it is gone already; kNotFound if there never was one.
  Status destroy(const std::string& id);
  // timeout_sec: moves the deadline.
  Result<pb::PingSandboxReply> ping(const std::string& id, std::optional<uint32_t> timeout_sec);
  Result<TemplateRecord> snapshot(const SnapshotRequest& request);
  Status delete_snapshot(const std::string& name);
  // Gives a name to what `source` brings (bytes of an archive; nothing at the end). An empty name: as it was exported.
  Result<TemplateRecord> import_snapshot(const std::string& name, bool overwrite,
                                         const std::function<Result<std::string_view>()>& source);
  // The sandbox if it is running; kFailedPrecondition or kAborted with its state if not.
  Result<SandboxRecord> running(const std::string& id);

 private:
  Result<TemplateRecord> find_template(const std::string& name);
  Result<std::optional<CreateOutcome>> enter(SandboxRecord& record, const std::optional<IdempotencyKey>& key);
  struct Restore {
    std::optional<uint32_t> timeout_sec;
    std::string snapshot_id;     // empty: of its pause
    std::string_view operation;  // "resume"
    std::string_view wish;       // "be resumed"
    RestoreOptions options;
  };
  Result<SandboxRecord> restore(const std::string& id, const Restore& how);
  // It runs, and stays restorable from `snapshot_id` (empty: from nothing yet); what it was before is released.
  Result<SandboxRecord> started(const SandboxRecord& record, State from, const pb::SandboxStarted& reply,
                                const std::string& snapshot_id);
  Error create_failed(const SandboxRecord& record, Error error, bool repeatable);
  // Settles a row of which an operation failed with `error`; `fallback` is the state if the host cannot be asked.
  void settle_failure(const SandboxRecord& record, const Error& error, State fallback);
  void drop_snapshot(const std::string& snapshot_id);
  void end_on_host(const std::string& id);
  Result<TemplateRecord> snapshot_of_paused(const SnapshotRequest& request);
  Result<TemplateRecord> snapshot_of_running(const SnapshotRequest& request, const SandboxRecord& sandbox);

  Store& store_;
  HostAgentApi& agent_;
  ActiveOperations& active_;
  Settler& settler_;
  std::function<void()> wake_;
};

// Shared by the parts of Operations.
Error wrong_state(const SandboxRecord& sandbox, std::string_view wish);
int64_t deadline_after(uint32_t timeout_sec);  // Unix ms; 0 for no end
// How `stats` of a pause or snapshot stands in the database and in answers.
Json capture_json(const pb::SnapshotTaken& taken);

inline constexpr std::chrono::milliseconds kAgentPatience{2000};

}  // namespace stasis::server
