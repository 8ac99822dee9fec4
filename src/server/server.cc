#include "server/server.h"

#include <signal.h>
#include <unistd.h>

#include "base/descriptor_limit.h"
#include "base/file_lock.h"
#include "base/log.h"
#include "base/poll.h"
#include "base/signals.h"
#include "server/grpc_agent.h"
#include "server/handlers.h"
#include "server/http_server.h"
#include "server/random_text.h"

namespace stasis::server {
namespace {

constexpr size_t kTokenDigits = 40;
constexpr uint64_t kMaxTokenFile = 4096;
constexpr std::chrono::milliseconds kFirstLook{1000};

bool valid_token(std::string_view token) {
  if (token.size() < 16) return false;
  for (const char c : token) {
    if (c <= ' ' || c > '~') return false;
  }
  return true;
}

// The token in STATE/api-token; a new one if there is none.
Result<std::string> load_token(const Path& path) {
  FileSystem& fs = real_file_system();
  if (!exists(fs, path)) {
    const std::string token = "e2b_" + random_text(kTokenDigits, kHexDigits);
    STASIS_TRY_CONTEXT(publish_file(fs, path, token + "\n"), "write the API token");
    return token;
  }
  STASIS_ASSIGN(const std::vector<std::byte> bytes, read_file(fs, path, kMaxTokenFile));
  std::string token(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  while (token.ends_with('\n')) token.pop_back();
  if (valid_token(token)) return token;
  return fail(Code::kFailedPrecondition, path.string() + " does not hold a token of 16 or more printable characters",
              "remove the file: the server makes a new one");
}

Result<FileLock> lock_state(const Path& state_dir) {
  auto lock = FileLock::try_exclusive(state_dir / "server.lock");
  if (!lock && lock.error().code == Code::kFailedPrecondition) {
    return fail(Code::kFailedPrecondition, "another server uses the state directory " + state_dir.string(),
                "stop it, or give this one a state directory of its own");
  }
  return lock;
}

class ControlPlane final : public Server {
 public:
  ControlPlane(const ServerOptions& options, FileLock lock, std::unique_ptr<Store> store, std::string token)
      : options_(options),
        lock_(std::move(lock)),
        store_(std::move(store)),
        token_(std::move(token)),
        agent_(connect_agent(options.agent_socket)),
        router_(token_, [this](const std::string& method, const std::string& route, unsigned status, double seconds) {
          metrics_.observe(method, route, status, seconds);
        }) {
    add_system_routes(router_, services_);
    add_sandbox_routes(router_, services_);
    add_exec_routes(router_, services_);
    add_file_routes(router_, services_);
    add_snapshot_routes(router_, services_);
    add_archive_routes(router_, services_);
    add_store_routes(router_, services_);
    add_inspect_routes(router_, services_);
    add_trace_routes(router_, services_);
    add_retention_routes(router_, services_);
  }
  ~ControlPlane() override { stop(); }
  ControlPlane(const ControlPlane&) = delete;
  ControlPlane& operator=(const ControlPlane&) = delete;

  Status listen() {
    // Snapshots that a killed server was making are nobody's.
    STASIS_TRY(store_->write([](Tables& tables) { return tables.orphans.release_all(); }));
    Status first = agent_->check(kFirstLook);
    if (first) first = reconciler_.pass();
    if (!first) spdlog::warn("first look at the host: {}", first.error().message);
    const HttpServerOptions http{options_.listen_address, options_.port, options_.max_connections};
    STASIS_ASSIGN(http_, HttpServer::start(http, [this](Exchange& exchange) { return router_.handle(exchange); }));
    reconciler_.start(first.has_value());
    const Json announcement = {{"url", url()}, {"pid", ::getpid()}};
    STASIS_TRY_CONTEXT(publish_file(real_file_system(), announcement_path(), announcement.dump() + "\n"),
                       "announce the server");
    announced_ = true;
    spdlog::info("listening on {}", url());
    return {};
  }

  void stop() override {
    if (announced_) (void)real_file_system().remove(announcement_path());
    announced_ = false;
    if (http_ && !http_->drain(options_.stop_patience)) {
      spdlog::warn("requests are still under way: the next start settles what they did");
    }
    agent_->shut_down();
    reconciler_.stop();
    if (http_) http_->stop();
    http_.reset();
  }

  std::string url() const override {
    const bool v6 = options_.listen_address.find(':') != std::string::npos;
    const std::string host = v6 ? "[" + options_.listen_address + "]" : options_.listen_address;
    return "http://" + host + ":" + std::to_string(http_->port());
  }
  std::string token() const override { return token_; }
  Status reconcile() override { return reconciler_.pass(); }

 private:
  Path announcement_path() const { return options_.state_dir / "server.json"; }

  ServerOptions options_;
  FileLock lock_;
  std::unique_ptr<Store> store_;
  std::string token_;
  std::unique_ptr<GrpcAgent> agent_;
  ActiveOperations active_;
  Settler settler_{*store_, *agent_};
  Reconciler reconciler_{*store_, *agent_, active_, settler_, options_.reconciler};
  Operations operations_{*store_, *agent_, active_, settler_, [this] { reconciler_.wake(); }};
  Metrics metrics_;
  Services services_{*store_, *agent_, operations_, metrics_, [this] { reconciler_.wake(); }};
  Router router_;
  std::unique_ptr<HttpServer> http_;
  bool announced_ = false;
};

}  // namespace

Result<std::unique_ptr<Server>> Server::start(const ServerOptions& options) {
  STASIS_TRY_CONTEXT(real_file_system().make_directory(options.state_dir), "make the state directory");
  STASIS_ASSIGN(FileLock lock, lock_state(options.state_dir));
  STASIS_ASSIGN(std::unique_ptr<Store> store, Store::open(options.state_dir / "server.db"));
  STASIS_ASSIGN(std::string token, load_token(options.state_dir / "api-token"));
  auto server = std::make_unique<ControlPlane>(options, std::move(lock), std::move(store), std::move(token));
  STASIS_TRY(server->listen());
  return std::unique_ptr<Server>(std::move(server));
}

Status run_server(const ServerOptions& options) {
  STASIS_ASSIGN(const UniqueFd signals, take_signals({SIGTERM, SIGINT}));
  start_logging("server");
  raise_descriptor_limit();
  STASIS_ASSIGN(const std::unique_ptr<Server> server, Server::start(options));
  while (true) {
    STASIS_ASSIGN(const bool came, wait_readable(signals.get(), Deadline::never()));
    if (came && read_signal(signals.get()) != 0) break;
  }
  spdlog::info("stopping; sandboxes go on");
  server->stop();
  return {};
}

}  // namespace stasis::server
