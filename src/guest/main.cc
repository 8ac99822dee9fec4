// stasis-guest: one program in three roles. As /init of the initramfs it finds the root disk; as init of that disk it
// makes the system; and there, or started by hand with --no-init, it is the daemon.
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <optional>
#include <string>

#include "guest/boot_common.h"
#include "guest/boot_initrd.h"
#include "guest/boot_system.h"
#include "guest/console.h"
#include "guest/daemon.h"
#include "guest/greeter.h"
#include "guest/http_server.h"
#include "guest/text.h"

namespace {

using namespace stasis::guest;

constexpr const char* kPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
constexpr const char* kUsage =
    "usage: stasis-guest [--no-init] [--listen ADDRESS] [--port N] [--root DIR]\n"
    "  As process 1 it is the guest's init. By hand: --no-init leaves the machine alone (host name, clock, random\n"
    "  state), and --root DIR is put in front of the files of its identity (/etc/hostname, /run/e2b, ...).\n";

struct Options {
  bool init = false;
  std::string address = "0.0.0.0";
  uint16_t port = 49983;
  MachineScope scope;
};

std::optional<Options> parse_options(int argc, char** argv) {
  Options options;
  options.init = getpid() == 1;
  for (int i = 1; i < argc; ++i) {
    std::string_view name = argv[i];
    if (name == "--no-init") {
      options.init = false;
      options.scope.kernel = false;
      continue;
    }
    const char* value = i + 1 < argc ? argv[i + 1] : nullptr;
    if (!name.starts_with("--")) continue;  // words of the kernel command line that the kernel did not know
    if (!value) return std::nullopt;
    ++i;
    if (name == "--listen") {
      options.address = value;
    } else if (name == "--root") {
      options.scope.root = value;
    } else if (auto port = parse_number(value); name == "--port" && port && *port <= 65535) {
      options.port = static_cast<uint16_t>(*port);
    } else {
      return std::nullopt;
    }
  }
  return options;
}

// Descriptors 0 to 2 are taken from now on, so that none of the daemon's own gets such a number.
void open_standard_descriptors() {
  while (true) {
    int fd = open("/dev/null", O_RDWR);
    if (fd < 0) return;
    if (fd > STDERR_FILENO) {
      close(fd);
      return;
    }
  }
}

std::string uptime() {
  timespec now{};
  clock_gettime(CLOCK_BOOTTIME, &now);
  std::string hundredths = std::to_string(now.tv_nsec / 10'000'000 + 100).substr(1);
  return std::to_string(now.tv_sec) + "." + hundredths;
}

int serve(const Options& options) {
  ProcessTable table;
  Daemon daemon(table, options.scope);
  stasis::UniqueFd listener = listen_on(options.address, options.port);
  if (!listener) {
    log_line("cannot listen on " + options.address + ":" + std::to_string(options.port) + ": " + std::strerror(errno));
    return 1;
  }
  uint16_t port = bound_port(listener.get());
  stasis::UniqueFd greeted = take_datagrams_on(options.address, port);
  if (!greeted) {
    log_line("cannot take datagrams on " + options.address + ":" + std::to_string(port) + ": " + std::strerror(errno));
    return 1;
  }
  Greeter greeter(std::move(greeted), [&daemon](std::string_view body) { return daemon.init(body); });
  HttpServer server(std::move(listener), [&daemon](Exchange& exchange) { daemon.handle(exchange); });
  server.start();
  greeter.start();
  log_line("ready on " + options.address + ":" + std::to_string(port) + ", " + uptime() + " s after boot");
  table.run();
  table.kill_all();
  greeter.stop();
  server.stop();
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (getpid() == 1 && std::strcmp(argv[0], "/init") == 0) boot_from_initrd();
  auto options = parse_options(argc, argv);
  if (!options) {
    (void)!write(STDERR_FILENO, kUsage, std::strlen(kUsage));
    return 2;
  }
  open_standard_descriptors();
  (void)mallopt(M_ARENA_MAX, 2);  // memory of a guest is precious, and its daemon is not busy
  (void)signal(SIGPIPE, SIG_IGN);
  (void)setenv("PATH", kPath, 1);
  if (options->init) start_system();
  int status = serve(*options);
  if (options->init) power_off();
  return status;
}
