// The supervisor's protocol: what the agent asks of one sandbox's supervisor, over the unix socket `control.sock` in
// the sandbox's directory (mode 0600). One JSON object a request, one an answer, framed as in base/unix_socket.h; a
// connection carries requests one after another, and a supervisor serves them in order, so two pauses cannot overlap.
// An answer is
// {"ok": {...}} or {"error": {"code","message","remedy"}}. The end of the connection means that the supervisor has
// gone; what it wrote last is in `exit.json` (ExitRecord).
//
//   state     {daemon_answers} -> StateReply. daemon_answers (left out: false): the guest's daemon answers, so what the
//             restore needs has nearly all been touched. It goes with this request because the agent asks for the state
//             then anyway, and an older supervisor does not look at it.
//   pause     {snapshot_id} -> SnapshotReply; the supervisor exits after the answer. On error the guest runs on.
//   snapshot  {snapshot_id} -> SnapshotReply; the guest runs on.
//   connect   {transport} -> {} with one descriptor: a socket ("tcp" or "udp"; left out: "tcp"), not connected, made in
//             the sandbox's network namespace
//   pager     -> PagerReport (pager_report.h): what the page server has done until now
//   trace     -> TraceReply: the restore's timeline
//   stop      {reason} -> {}; the supervisor ends the VMM and exits after the answer
//
// A spare (`stasis-supervisor --spare-dir DIR`) has everything but a snapshot: its namespaces, its network, the file of
// its disk, its VMM. It dies with the agent that started it, until it is told which sandbox it is to be. It is asked
// over DIR/control.sock:
//
//   spare     -> {}; answered when it is ready
//   become    {sandbox_dir} -> {}; it has moved its socket and its logs to that directory, whose configuration it has
//             read, and from now on it is the supervisor of that sandbox, and outlives the agent. The first `state`
//             tells whether the restore has worked. On error it ends.
// It ends also with that connection, and by SIGTERM.
#pragma once

#include <sys/types.h>

#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "base/file_system.h"
#include "base/result.h"
#include "snapshot/manifest.h"
#include "supervisor/pager_report.h"

namespace stasis::supervisor {

// Written by the agent as `config.json` in the sandbox's directory (mode 0700), read by the supervisor when it starts:
//   stasis-supervisor --sandbox-dir DIR
// The directory then also holds control.sock, memory.map and disk.map (what the sandbox stands on: roots for
// collection), disk/ (the write layer), vmm.log, supervisor.log, exit.json.
struct SandboxConfig {
  std::string sandbox_id;
  Path store;                    // root of the snapshot store
  snapshot::SnapshotId base;     // image: boot it; snapshot: restore it
  snapshot::MachineShape shape;  // ignored for a snapshot, which has its own
  uint64_t disk_bytes = 0;       // 0: as the base
  std::string vmm;               // "qemu", "firecracker"
  std::string restore = {};      // "uffd", "mapped"; empty: the best that is possible
  uint32_t load_mib_per_s = 0;   // of a restored memory, in the background; 0: only what is touched
};

// What `connect` calls them.
inline constexpr const char* kTcp = "tcp";
inline constexpr const char* kUdp = "udp";

inline constexpr uint32_t kMaxLoadMibPerS = 65'536;

// Whether this can be asked for at all; kInvalidArgument says what cannot.
Status check_restore(const std::string& restore, uint32_t load_mib_per_s);

// Written by the agent as `spare.json` in the directory of a spare, which the agent removes when the spare has become a
// sandbox or has ended. A spare serves what has this shape.
struct SpareConfig {
  snapshot::MachineShape shape;
  uint64_t disk_bytes = 0;
  std::string vmm;
};

struct StateReply {
  std::string sandbox_id;
  std::string state;  // "starting", "running"
  snapshot::SnapshotId base;
  snapshot::MachineShape shape;
  uint64_t disk_bytes = 0;
  std::string vmm;
  std::string accelerator;
  std::string guest_address;  // "172.30.0.2"
  pid_t supervisor_pid = 0;
  pid_t vmm_pid = 0;
  int64_t started_unix_ms = 0;
  uint64_t vmm_ready_us = 0;   // from the supervisor's start until the guest ran
  std::string restore_method;  // "uffd", "mapped", "partly"; empty after a boot
  std::string restore_reason;  // why that one
  bool spare = false;          // by a spare that was started ahead
  uint64_t total_pages = 0;
  uint64_t faults = 0;
  uint64_t pages_by_fault = 0;
  uint64_t pages_around = 0;
  uint64_t pages_prefetched = 0;
  uint64_t pages_zero = 0;
  uint64_t write_faults = 0;    // of the faults; the others read
  uint64_t fault_p50_us = 0;    // half of them took less than this
  uint64_t fault_p99_us = 0;    // 99 of 100 did
  uint64_t mapped_bytes = 0;    // of layers, in the guest's place
  uint64_t copied_bytes = 0;    // of their short runs, copied in when it was mapped
  uint64_t resident_pages = 0;  // of guest memory, in the host's memory now; 0: not known
  uint64_t disk_blocks_written = 0;
};

// How a snapshot of a guest that went on came by its memory.
struct LiveStats {
  uint32_t rounds = 0;            // copied while the guest ran
  uint64_t last_round_bytes = 0;  // copied while it stood still
  std::string reason = {};        // why there were no rounds
  friend bool operator==(const LiveStats&, const LiveStats&) = default;
};

struct SnapshotReply {
  snapshot::SnapshotId id;
  snapshot::GenerationStats memory;
  snapshot::GenerationStats disk;
  uint64_t stopped_us = 0;
  uint64_t total_us = 0;
  std::optional<LiveStats> live = {};  // none of a pause
};

// Why a supervisor ended, for whoever comes later. reason: "paused", "stopped: ...", "vmm exited: signal 9 (Killed)",
// "page server: ...", "start failed: ...".
struct ExitRecord {
  bool expected = false;  // paused or stopped on request
  std::string reason;
  Error error;                            // if not expected
  std::optional<PagerReport> pager = {};  // as it was at the end; none if nothing ran
};

inline constexpr const char* kRestoreUffd = "uffd";
inline constexpr const char* kRestoreMapped = "mapped";
inline constexpr const char* kRestorePartly = "partly";  // mapped in part, the rest by uffd; cannot be asked for
inline constexpr const char* kConfigFile = "config.json";
inline constexpr const char* kControlSocket = "control.sock";
inline constexpr const char* kSpareFile = "spare.json";
inline constexpr const char* kVmmLog = "vmm.log";
inline constexpr const char* kSupervisorLog = "supervisor.log";
inline constexpr const char* kExitFile = "exit.json";
inline constexpr const char* kMemoryMapFile = "memory.map";
inline constexpr const char* kDiskMapFile = "disk.map";

// JSON forms. from_json functions reject missing and mistyped fields with kInvalidArgument.
nlohmann::json to_json(const SandboxConfig& config);
nlohmann::json to_json(const SpareConfig& config);
nlohmann::json to_json(const StateReply& reply);
nlohmann::json to_json(const SnapshotReply& reply);
nlohmann::json to_json(const ExitRecord& record);
nlohmann::json to_json(const Error& error);
Result<SandboxConfig> config_from_json(const nlohmann::json& json);
Result<SpareConfig> spare_config_from_json(const nlohmann::json& json);
Result<StateReply> state_from_json(const nlohmann::json& json);
Result<SnapshotReply> snapshot_from_json(const nlohmann::json& json);
Result<ExitRecord> exit_from_json(const nlohmann::json& json);
Error error_from_json(const nlohmann::json& json);

}  // namespace stasis::supervisor
