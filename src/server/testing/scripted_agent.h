// A host agent for tests: the HostAgent service over real gRPC on a unix socket, with sandboxes and snapshots that are
// only entries of a table. Each call can be held until it is let go, and can be told to fail; the table can be changed
// behind the control plane's back. It checks what a real one would: unknown ids, ids in use, wrong states.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/file_system.h"
#include "base/result.h"
#include "server/host_agent.h"

namespace stasis::server::testing {

struct ScriptedSandbox {
  std::string state = "running";  // as in SandboxInfo
  std::string reason;
  std::string base_snapshot_id;
  std::string hostname;
  std::string access_token;
  std::map<std::string, std::string> env;
  uint32_t vcpus = 1;
  uint32_t memory_mb = 256;
  uint64_t disk_bytes = uint64_t{64} << 20;
  int64_t deadline_ms = 0;
  uint32_t load_mib_per_s = 0;   // of its resume
  std::string not_copied_ahead;  // why; empty: it is
  std::map<std::string, std::string> files;
};

struct ScriptedSnapshot {
  std::string kind = "snapshot";
  uint32_t vcpus = 1;
  uint32_t memory_mb = 256;
  uint64_t disk_bytes = uint64_t{64} << 20;
  std::map<std::string, std::string> files;
  bool damaged = false;
};

// A parent that every snapshot says it has, and that does not exist.
inline const char* const kGoneId = "99999999-9999-4999-8999-999999999999";
inline const char* const kImageId = "11111111-1111-4111-8111-111111111111";
inline constexpr uint32_t kImageDiskMb = 64;
inline constexpr uint64_t kScriptedChecksum = 0x0123456789abcdef;  // of whatever is kept of an import

class ScriptedService;

class ScriptedAgent {
 public:
  // Listens at once. It has one image, "base".
  explicit ScriptedAgent(const Path& socket);
  ~ScriptedAgent();
  ScriptedAgent(const ScriptedAgent&) = delete;
  ScriptedAgent& operator=(const ScriptedAgent&) = delete;

  // As if the process were killed and started again: calls under way break, the sandboxes stay.
  void stop();
  void start();

  // The next calls of this name ("PauseSandbox") fail with `error` before they change anything; times < 0: all.
  void fail_calls(const std::string& call, Error error, int times = 1);
  // Calls of this name stop before their work (kBefore) or after it, before they answer (kAfter), until release().
  enum class Point { kBefore, kAfter };
  void hold(const std::string& call, Point point = Point::kBefore);
  void release(const std::string& call);
  // Waits until a call of this name is held; false after ten seconds.
  bool wait_held(const std::string& call);
  int calls(const std::string& call) const;

  // Changes or reads the table.
  void edit(const std::function<void(std::map<std::string, ScriptedSandbox>& sandboxes,
                                     std::map<std::string, ScriptedSnapshot>& snapshots)>& change);
  bool has_sandbox(const std::string& id) const;
  bool has_snapshot(const std::string& id) const;
  // The bytes that are kept of an import, whether it succeeded or broke; of what was imported, "/archive" among the
  // snapshot's files is all of it.
  std::string kept_import(const std::string& stream) const;
  // Without the image's.
  std::set<std::string> snapshots() const;
  size_t sandbox_count() const;
  // A verification finds what it finds and then fails.
  void fail_verifications_at_the_end(Error error);
  void set_images(std::map<std::string, std::string> images);  // name -> snapshot id

 private:
  struct Listener;
  Path socket_;
  std::unique_ptr<ScriptedService> service_;
  std::unique_ptr<Listener> listener_;
};

}  // namespace stasis::server::testing
