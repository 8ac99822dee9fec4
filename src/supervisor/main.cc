// stasis-supervisor --sandbox-dir DIR: holds one sandbox (its VMM, page server and disk) in namespaces of its own, and
// outlives the agent that started it. What it is to run is in DIR/config.json; why it ended is in DIR/exit.json. Exit
// status: 0 if it was asked to end, 1 otherwise.
#include <signal.h>

#include <cstring>
#include <iostream>

#include "base/log.h"
#include "base/namespaces.h"
#include "base/signals.h"
#include "base/unix_socket.h"
#include "supervisor/control.h"

namespace stasis::supervisor {
namespace {

constexpr uint64_t kMaxConfigBytes = 1 << 20;

Result<SandboxConfig> read_config(const Path& dir) {
  STASIS_ASSIGN(const auto bytes, read_file(real_file_system(), dir / kConfigFile, kMaxConfigBytes));
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  return config_from_json(nlohmann::json::parse(text, nullptr, false));
}

void record_exit(const Path& dir, const ExitRecord& record) {
  spdlog::info("ends: {}", record.reason);
  // The directory may be gone already if the agent destroyed the sandbox: then nobody wants to know.
  (void)publish_file(real_file_system(), dir / kExitFile, to_json(record).dump());
}

ExitRecord failed_start(Error error) { return {false, "start failed: " + error.message, std::move(error)}; }

// Everything that must happen while the process has one thread: signals, namespaces. Then the sandbox itself.
Result<std::unique_ptr<Sandbox>> start(const SandboxConfig& config, const Path& dir) {
  STASIS_TRY(enter_private_mount_namespace());
  STASIS_TRY(enter_private_network_namespace());
  return Sandbox::start(config, dir);
}

ExitRecord run(const Path& dir) {
  auto config = read_config(dir);
  if (!config) return failed_start(std::move(config).error());
  start_logging("supervisor " + config->sandbox_id);
  auto signals = take_signals({SIGTERM, SIGINT});
  if (!signals) return failed_start(std::move(signals).error());
  // The socket exists before the sandbox runs: an agent that connects early waits for the first answer.
  auto listener = listen_unix(dir / kControlSocket);
  if (!listener) return failed_start(std::move(listener).error());
  auto sandbox = start(*config, dir);
  if (!sandbox) return failed_start(std::move(sandbox).error());
  spdlog::info("runs");
  return serve(std::move(*sandbox), listener->get(), signals->get());
}

}  // namespace
}  // namespace stasis::supervisor

int main(int argc, char** argv) {
  if (argc != 3 || std::strcmp(argv[1], "--sandbox-dir") != 0) {
    std::cerr << "usage: stasis-supervisor --sandbox-dir DIR\nThe agent starts it; see docs/architecture.md.\n";
    return 2;
  }
  const stasis::Path dir = argv[2];
  const stasis::supervisor::ExitRecord record = stasis::supervisor::run(dir);
  stasis::supervisor::record_exit(dir, record);
  return record.expected ? 0 : 1;
}
