#include "cli/up.h"

#include "base/file_lock.h"
#include "base/log.h"
#include "base/namespaces.h"
#include "base/unix_socket.h"
#include "cli/table.h"

namespace stasis::cli {
namespace {

using std::chrono::milliseconds;

constexpr std::chrono::seconds kNotice(10);
constexpr std::chrono::seconds kStopPatience(15);
constexpr milliseconds kProbeInterval(50);

Result<FileLock> lock_state(const Path& state_dir) {
  STASIS_TRY_CONTEXT(make_directories(state_dir.parent_path()), "make the state directory");
  STASIS_TRY_CONTEXT(real_file_system().make_directory(state_dir), "make the state directory");
  auto lock = FileLock::try_exclusive(state_dir / "up.lock");
  if (!lock && lock.error().code == Code::kFailedPrecondition) {
    return fail(Code::kFailedPrecondition,
                "another 'stasis up' is running with the state directory " + state_dir.string(),
                "use that one, stop it first, or give this one a --state-dir and a --port of its own");
  }
  return lock;
}

// The URL in server.json, once it was written by the server with this pid: an earlier server's file may still be there.
std::string announced_url(const Path& state_dir, pid_t server) {
  const auto bytes = read_file(real_file_system(), state_dir / "server.json", uint64_t{64} << 10);
  if (!bytes) return "";
  const Json document = Json::parse(reinterpret_cast<const char*>(bytes->data()),
                                    reinterpret_cast<const char*>(bytes->data() + bytes->size()), nullptr, false);
  return static_cast<pid_t>(number_field(document, "pid")) == server ? text_field(document, "url") : "";
}

// The server's URL as soon as both answer, empty before.
std::string ready_url(const Keeper& keeper, const UpArguments& arguments) {
  if (!connect_unix(agent_socket_of(arguments.state_dir))) return "";
  const std::string url = announced_url(arguments.state_dir, keeper.pid_of("server"));
  const auto endpoint = parse_url(url);
  return endpoint && Client(*endpoint).call("GET", "/healthz") ? url : "";
}

void announce(Session& session, const UpArguments& arguments, const std::string& url) {
  if (session.json()) {
    session.print({{"url", url}, {"state_dir", arguments.state_dir.string()}});
    return;
  }
  const bool is_default = arguments.state_dir == Path(kDefaultStateDir);
  session.io().out << printable("Stasis is ready at " + url + "; in another terminal: " +
                                (is_default ? "" : "STASIS_STATE_DIR=" + arguments.state_dir.string() + " ") +
                                "stasis create. Ctrl-C stops it; sandboxes go on.")
                   << std::endl;
}

Result<int> serve(Session& session, Keeper& keeper, const Path& program, UpArguments arguments) {
  STASIS_TRY(keeper.start());
  const auto notice = [] {
    spdlog::info("waiting for server and agent; an image that is new here is copied into the store first");
  };
  STASIS_ASSIGN(const std::string url, wait_until_ready(keeper, arguments, kNotice, notice));
  if (url.empty()) return kSuccess;
  announce(session, arguments, url);
  // A restarted server listens where the first one did.
  STASIS_ASSIGN(const Endpoint endpoint, parse_url(url));
  arguments.port = endpoint.port;
  for (const Service& service : up_services(program, arguments)) keeper.set_argv(service.name, service.argv);
  while (true) {
    STASIS_ASSIGN(const bool stop, keeper.step(Deadline::never()));
    if (stop) return kSuccess;
  }
}

}  // namespace

std::vector<Service> up_services(const Path& program, const UpArguments& arguments) {
  const std::string socket = agent_socket_of(arguments.state_dir).string();
  Service agent{"agent", {program.string(), "agent", "--state-dir", arguments.state_dir.string(), "--socket", socket}};
  for (const auto& [name, directory] : arguments.images) {
    agent.argv.insert(agent.argv.end(), {"--image", name + "=" + directory.string()});
  }
  agent.argv.insert(agent.argv.end(), {"--vmm", arguments.vmm, "--spares", std::to_string(arguments.spares)});
  Service server{"server",
                 {program.string(), "server", "--state-dir", arguments.state_dir.string(), "--agent-socket", socket,
                  "--port", std::to_string(arguments.port)}};
  return {std::move(agent), std::move(server)};
}

// No limit: a large image is imported before the agent answers, for as long as that takes.
Result<std::string> wait_until_ready(Keeper& keeper, const UpArguments& arguments, milliseconds interval,
                                     const std::function<void()>& notice) {
  Deadline next_notice = Deadline::after(interval);
  for (;;) {
    STASIS_ASSIGN(const bool stop, keeper.step(Deadline::after(kProbeInterval)));
    if (stop) return std::string();
    for (const char* name : {"agent", "server"}) {
      const std::string end = keeper.end_of(name);
      if (end.empty()) continue;
      return fail(Code::kUnavailable, "the " + std::string(name) + " ended (" + end + ") before it answered",
                  "its log above says why; 'stasis doctor' checks this machine");
    }
    std::string url = ready_url(keeper, arguments);
    if (!url.empty()) return url;
    if (!next_notice.passed()) continue;
    notice();
    next_notice = Deadline::after(interval);
  }
}

Result<int> run_up(Session& session, const UpArguments& arguments) {
  start_logging("up");
  std::error_code error;
  const Path program = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) return fail_errno(error.value(), "read /proc/self/exe");
  STASIS_ASSIGN(const FileLock lock, lock_state(arguments.state_dir));
  STASIS_ASSIGN(Keeper keeper, Keeper::create(up_services(program, arguments)));
  Result<int> outcome = serve(session, keeper, program, arguments);
  keeper.stop(kStopPatience);
  if (outcome)
    spdlog::info("stopped; sandboxes that were running go on, and the next 'stasis up' here takes them over");
  return outcome;
}

}  // namespace stasis::cli
