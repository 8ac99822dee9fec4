// Keeps the database true: compares it with the host, reading the database first, every few seconds, at the start and
// when the agent has come back. Rows whose operation nobody here runs any more are settled from what the host says;
// sandboxes that the host runs and the database does not know are ended after a grace period; what was marked as ending
// is ended; snapshots that nothing refers to are deleted.
#pragma once

#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <string>
#include <thread>

#include "server/active_operations.h"
#include "server/settler.h"
#include "server/store.h"

namespace stasis::server {

struct ReconcilerOptions {
  std::chrono::milliseconds interval{2000};
  std::chrono::milliseconds unknown_grace{60'000};
};

class Reconciler {
 public:
  Reconciler(Store& store, HostAgentApi& agent, ActiveOperations& active, Settler& settler, ReconcilerOptions options)
      : store_(store), agent_(agent), active_(active), settler_(settler), options_(options) {}
  ~Reconciler() { stop(); }
  Reconciler(const Reconciler&) = delete;
  Reconciler& operator=(const Reconciler&) = delete;

  // One pass, now, in the calling thread. kUnavailable if the host cannot be asked.
  Status pass();

  // `reachable`: a pass has just been made, the next one can wait.
  void start(bool reachable);
  void stop();
  // Has the next pass made at once.
  void wake();

 private:
  struct Sighting {
    std::chrono::steady_clock::time_point first;
    int count = 0;
  };

  void loop(bool reachable);
  Status reconcile(const SandboxRecord& record, HostView& view);
  Status settle_alone(const SandboxRecord& record, HostView& view);
  Status sync_deadline(const SandboxRecord& record, const pb::SandboxInfo& info);
  void end_unknown(const std::vector<SandboxRecord>& known, const HostView& view);
  void end_if_still_unknown(const std::string& id);

  Store& store_;
  HostAgentApi& agent_;
  ActiveOperations& active_;
  Settler& settler_;
  ReconcilerOptions options_;

  std::mutex pass_mutex_;  // one pass at a time
  std::map<std::string, Sighting> unknown_;

  std::mutex mutex_;
  std::condition_variable changed_;
  bool awake_ = false;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace stasis::server
