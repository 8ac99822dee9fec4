// Everything that one host does with sandboxes: start, pause, resume, snapshot, destroy, adopt, end at the deadline. No
// gRPC here: service.cc translates. Thread-safe; one operation at a time on each sandbox (others get kAborted), except
// destroy, which ends whatever is under way. A Host that goes away leaves every sandbox running: the next one adopts
// them.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "agent/guest_client.h"
#include "agent/images.h"
#include "agent/sandbox.h"
#include "agent/tokens.h"
#include "base/file_lock.h"
#include "snapshot/store.h"

namespace stasis::agent {

struct HostOptions {
  Path state_dir;
  Path supervisor_program;
  std::string vmm;  // "qemu" or "firecracker"
  std::vector<std::pair<std::string, Path>> images;
};

// What a sandbox is to be. From an image: shape and disk size are chosen; from a snapshot they are the snapshot's.
struct StartSpec {
  std::string id;
  snapshot::SnapshotId base;
  snapshot::MachineShape shape;  // zeros for a snapshot
  uint64_t disk_bytes = 0;       // 0: as the base
  uint32_t timeout_sec = 0;      // 0: no end
  SandboxRecord record;          // hostname, token, env
  bool same_machine = false;     // a resume: it keeps its identity
};

struct Started {
  supervisor::StateReply info;  // as of when the daemon answered
  uint64_t vmm_ready_us = 0;
  uint64_t daemon_answered_us = 0;
  uint64_t total_us = 0;
};

struct Taken {
  supervisor::SnapshotReply reply;
  snapshot::Manifest manifest;
  uint64_t disk_bytes = 0;
};

struct SandboxView {
  std::string id;
  SandboxState state;
  std::string reason;
  int64_t deadline_unix_ms = 0;
  bool adopted = false;
  supervisor::StateReply info;
};

class Host {
 public:
  // Takes the state directory (kFailedPrecondition if another agent has it), imports images, adopts what runs.
  static Result<std::unique_ptr<Host>> open(const HostOptions& options);
  ~Host();
  Host(const Host&) = delete;
  Host& operator=(const Host&) = delete;

  Result<Started> start(const StartSpec& spec);
  // False if there was none.
  Result<bool> destroy(const std::string& id, const std::string& reason);
  Result<Taken> pause(const std::string& id, snapshot::SnapshotId snapshot);
  Result<Taken> snapshot(const std::string& id, snapshot::SnapshotId snapshot);
  // Bytes given back.
  Result<uint64_t> delete_snapshot(snapshot::SnapshotId id);

  std::vector<SandboxView> list() const;
  // kNotFound; kFailedPrecondition unless it runs.
  Result<GuestClient> guest(const std::string& id) const;
  Result<supervisor::StateReply> state(const std::string& id) const;
  // Moves the end of its life to timeout_sec from now. Returns the deadline.
  Result<int64_t> extend(const std::string& id, uint32_t timeout_sec) const;
  Result<int64_t> deadline(const std::string& id) const;

  const snapshot::Store& store() const { return store_; }
  const std::map<std::string, Image>& images() const { return images_; }

 private:
  using SandboxPtr = std::shared_ptr<Sandbox>;
  Host(HostOptions options, snapshot::Store store, Tokens tokens, FileLock lock, Event stop);

  Result<SandboxPtr> find(const std::string& id) const;
  Result<SandboxPtr> enter(const StartSpec& spec);
  Status check(const StartSpec& spec) const;
  Result<Started> bring_up(const SandboxPtr& sandbox, const StartSpec& spec);
  Status spawn_supervisor(const SandboxPtr& sandbox);
  Status connect_supervisor(const SandboxPtr& sandbox);
  Status await_daemon(const SandboxPtr& sandbox, const GuestClient& guest, Milliseconds limit);
  Status init_guest(const StartSpec& spec, const SandboxRecord& record, const GuestClient& guest) const;
  GuestClient client_of(const SandboxPtr& sandbox) const;
  // Ends the processes of a sandbox and removes everything of it. The caller holds its operation.
  void take_down(const SandboxPtr& sandbox, const std::string& reason);
  void forget(const SandboxPtr& sandbox);
  Error explain(const SandboxPtr& sandbox, Error error) const;
  Result<Taken> take(const SandboxPtr& sandbox, snapshot::SnapshotId id, bool keep_running);
  Result<Taken> describe(const supervisor::SnapshotReply& reply) const;

  Status adopt_all();
  void adopt(const std::string& id);
  void watch();
  void watch_one(const SandboxPtr& sandbox);
  Result<std::vector<snapshot::BlockMap>> roots() const;
  uint64_t collect();  // bytes given back

  HostOptions options_;
  snapshot::Store store_;
  Tokens tokens_;
  FileLock lock_;
  std::map<std::string, Image> images_;
  mutable std::mutex mutex_;
  std::map<std::string, SandboxPtr> sandboxes_;
  std::atomic<bool> collect_wanted_{true};
  Event stop_;
  std::thread watcher_;
};

}  // namespace stasis::agent
