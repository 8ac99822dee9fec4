// stasis-supervisor --sandbox-dir DIR: holds one sandbox (its VMM, page server and disk) in namespaces of its own, and
// outlives the agent that started it. What it is to run is in DIR/config.json; why it ended is in DIR/exit.json. Exit
// status: 0 if it was asked to end, 1 otherwise.
// stasis-supervisor --spare-dir DIR: makes ready what DIR/spare.json says, and waits to be told which sandbox it is.
#include <signal.h>

#include <cstring>
#include <iostream>

#include "base/descriptor_limit.h"
#include "base/log.h"
#include "base/namespaces.h"
#include "base/pagemap.h"
#include "base/signals.h"
#include "base/unix_socket.h"
#include "supervisor/config_file.h"
#include "supervisor/control.h"
#include "supervisor/spare.h"

namespace stasis::supervisor {
namespace {

void record_exit(const Path& dir, const ExitRecord& record) {
  spdlog::info("ends: {}", record.reason);
  // The directory may be gone already if the agent destroyed the sandbox: then nobody wants to know.
  (void)replace_file(real_file_system(), dir / kExitFile, to_json(record).dump());
}

ExitRecord failed_start(Error error) { return {false, "start failed: " + error.message, std::move(error)}; }

// What reaches the process, from its start to its end.
struct Ears {
  UniqueFd signals;
  UniqueFd listener;
};

// Everything that must happen while the process has one thread: signals, namespaces. The socket exists before there is
// anything to ask: who connects early waits for the first answer.
Result<Ears> set_up(const Path& dir) {
  raise_descriptor_limit();
  Ears ears;
  STASIS_ASSIGN(ears.signals, take_signals({SIGTERM, SIGINT}));
  STASIS_ASSIGN(ears.listener, listen_unix(dir / kControlSocket));
  STASIS_TRY(enter_private_mount_namespace());
  STASIS_TRY(enter_private_network_namespace());
  return ears;
}

// Firecracker tells what its guests write itself.
void tell_what_the_kernel_does_not(const SandboxConfig& config) {
  if (config.vmm != "qemu" || kernel_tells_written_pages()) return;
  spdlog::warn(
      "this kernel does not tell what the guest writes: each snapshot compares all that it may have written, and stops "
      "it for that; run Linux 6.9 or newer");
}

ExitRecord hold(const SandboxConfig& config, Result<std::unique_ptr<Sandbox>> sandbox, const Ears& ears,
                UniqueFd client) {
  if (!sandbox) return failed_start(std::move(sandbox).error());
  spdlog::info("runs");
  tell_what_the_kernel_does_not(config);
  return serve(std::move(*sandbox), ears.listener.get(), ears.signals.get(), std::move(client));
}

ExitRecord run(const Path& dir) {
  auto config = read_config_file<SandboxConfig>(dir / kConfigFile, config_from_json);
  if (!config) return failed_start(std::move(config).error());
  start_logging("supervisor " + config->sandbox_id);
  auto ears = set_up(dir);
  if (!ears) return failed_start(std::move(ears).error());
  return hold(*config, Sandbox::start(*config, dir), *ears, {});
}

int run_sandbox(const Path& dir) {
  const ExitRecord record = run(dir);
  record_exit(dir, record);
  return record.expected ? 0 : 1;
}

int run_spare(const Path& dir) {
  start_logging("spare supervisor");
  Ears ears;
  auto takeover = [&]() -> Result<std::optional<Takeover>> {
    STASIS_ASSIGN(ears, set_up(dir));
    return wait_as_spare(dir, ears.listener.get(), ears.signals.get());
  }();
  if (!takeover) {
    spdlog::error("ends: {}", takeover.error().message);
    return 1;
  }
  if (!*takeover) return 0;
  const Path sandbox_dir = (*takeover)->sandbox_dir;
  const SandboxConfig config = (*takeover)->config;
  start_logging("supervisor " + config.sandbox_id);
  const ExitRecord record = hold(config, Sandbox::start(config, sandbox_dir, std::move((*takeover)->shell)), ears,
                                 std::move((*takeover)->client));
  record_exit(sandbox_dir, record);
  return record.expected ? 0 : 1;
}

}  // namespace
}  // namespace stasis::supervisor

int main(int argc, char** argv) {
  if (argc == 3 && std::strcmp(argv[1], "--sandbox-dir") == 0) return stasis::supervisor::run_sandbox(argv[2]);
  if (argc == 3 && std::strcmp(argv[1], "--spare-dir") == 0) return stasis::supervisor::run_spare(argv[2]);
  std::cerr << "usage: stasis-supervisor --sandbox-dir DIR | --spare-dir DIR\n"
               "The agent starts it; see docs/architecture.md.\n";
  return 2;
}
