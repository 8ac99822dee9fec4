// One sandbox as the agent knows it: its directory, what must survive an agent (the record), its supervisor, and its
// state. Shared between the threads of operations; `mutex` guards everything below it and is never held for long;
// `operation` is held for as long as a create, pause, snapshot or destroy is under way, so that there is one at a time.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>

#include "base/process.h"
#include "supervisor/client.h"

namespace stasis::agent {

inline constexpr const char* kRecordFile = "agent.json";

enum class SandboxState { kStarting, kRunning, kPausing, kResuming, kStopping, kDead };
std::string_view state_name(SandboxState state);
// 1 to 40 characters a-z and 0-9: it names a directory.
bool is_sandbox_id(const std::string& id);
// When a life of this many seconds that begins now ends; 0: never.
int64_t deadline_from(uint32_t timeout_sec);

// Kept in `agent.json` of the sandbox's directory (mode 0600: it holds the token).
struct SandboxRecord {
  std::string hostname;
  std::string access_token;
  std::map<std::string, std::string> env;
  int64_t deadline_unix_ms = 0;  // 0: none
  bool initialised = false;      // the guest has its identity: an agent that finds this false ends the sandbox
};
Status save_record(const Path& sandbox_dir, const SandboxRecord& record);
Result<SandboxRecord> load_record(const Path& sandbox_dir);
// What a supervisor that has gone wrote last; std::nullopt if it wrote nothing.
std::optional<supervisor::ExitRecord> load_exit_record(const Path& sandbox_dir);

// What it was started with; std::nullopt if that cannot be read.
std::optional<supervisor::SandboxConfig> load_config(const Path& sandbox_dir);

struct Sandbox {
  Sandbox(std::string sandbox_id, Path directory) : id(std::move(sandbox_id)), dir(std::move(directory)) {}

  const std::string id;
  const Path dir;
  std::mutex operation;

  std::mutex mutex;
  SandboxState state = SandboxState::kStarting;
  std::string reason;
  SandboxRecord record;
  bool adopted = false;
  std::set<snapshot::SnapshotId> writing;      // what its supervisor was asked for, and has not answered for
  bool destroyed = false;                      // a destroy has begun: whatever else is under way gives up
  std::shared_ptr<supervisor::Client> client;  // control connection
  std::optional<Process> child;                // the supervisor, if this agent started it
  UniqueFd supervisor_pidfd;
  UniqueFd vmm_pidfd;
  supervisor::StateReply info;  // as of the start or the adoption
};

// Of a snapshot. That of a large guest on a slow disk takes minutes: 64 GiB at 100 MB/s are eleven.
inline constexpr Milliseconds kSnapshotDeadline{30 * 60'000};

// Waits until supervisor and VMM have exited, and reaps the first. False if they have not by the deadline. For whoever
// holds `operation`: only it sets the descriptors.
bool await_end(Sandbox& sandbox, Deadline deadline);
// SIGKILL to the supervisor; its VMM dies with it.
void kill_supervisor(Sandbox& sandbox);
// True if the supervisor process has exited.
bool supervisor_gone(Sandbox& sandbox);
// What whatever else was under way says when a destroy has won.
tl::unexpected<Error> destroyed_meanwhile(const std::string& id);

}  // namespace stasis::agent
