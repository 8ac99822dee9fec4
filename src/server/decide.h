// What a sandbox's row should become, given what the host says: the rules of the reconciler, without side effects.
// The row must have been read before the host was asked. `stopping` rows are none of its business: they are ended.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "server/host_agent.h"
#include "server/records.h"
#include "server/sandbox_table.h"

namespace stasis::server {

enum class HostState {
  kAbsent,
  kBusy,  // the host is doing something with it: wait
  kRunning,
  kDead,  // its VMM ended; the host keeps it only to tell why
};

HostState host_state(const pb::SandboxInfo* info);

struct Observation {
  const pb::SandboxInfo* info = nullptr;  // nullptr: the host does not know it
  bool pending_exists = false;            // the snapshot that a pause was to write is at the host
  bool snapshot_exists = false;           // so is the last pause's
  int64_t now_ms = 0;
  std::string failure;  // why the operation that was under way ended, if that is known
};

struct Decision {
  std::optional<Transition> transition = {};
  bool destroy_on_host = false;            // clean up there, before the transition
  std::vector<std::string> released = {};  // snapshots that lose a reference by the transition
};

// True if nobody wants it back, should the host run it: it was destroyed, or its create failed. To the reconciler it is
// then unknown.
bool unwanted(const SandboxRecord& record);
// True if the decision depends on which snapshots the host has.
bool needs_snapshots(const SandboxRecord& record, HostState state);
Decision decide(const SandboxRecord& record, const Observation& seen);

// The columns that a sandbox found running at the host gets from there.
std::vector<std::pair<const char*, Value>> columns_from_host(const pb::SandboxInfo& info);

inline const char* const kReasonDestroyed = "destroyed";
inline const char* const kReasonTimeout = "timeout";
inline const char* const kReasonLost = "lost";

}  // namespace stasis::server
