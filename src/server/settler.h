// Brings rows in line with the host, one at a time, and deletes snapshots that nothing refers to any more. Shared by
// the operations (after a failure) and the reconciler. Thread-safe.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>

#include "server/decide.h"
#include "server/store.h"

namespace stasis::server {

// What the host said at one moment.
struct HostView {
  std::map<std::string, pb::SandboxInfo> sandboxes;
  std::optional<std::set<std::string>> snapshots = {};  // asked for only when a decision needs it, and always after
  const pb::SandboxInfo* find(const std::string& id) const;
};

class Settler {
 public:
  Settler(Store& store, HostAgentApi& agent) : store_(store), agent_(agent) {}

  Result<HostView> look();
  // `record` must have been read before `view` was taken. Does nothing if the row has changed since.
  Status settle(const SandboxRecord& record, HostView& view, const std::string& failure);
  // Ends a sandbox whose row says `stopping`: at the host, then in the row.
  Status end(const SandboxRecord& record);
  // Deletes at the agent what nothing refers to. What fails is tried again the next time.
  void collect();
  // Makes the `base` templates those that the host has.
  Status sync_images();

 private:
  Store& store_;
  HostAgentApi& agent_;
};

pb::DestroySandboxRequest destroy_request(const std::string& id, const std::string& reason);

}  // namespace stasis::server
