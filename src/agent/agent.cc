#include "agent/agent.h"

#include <grpcpp/grpcpp.h>
#include <signal.h>
#include <sys/stat.h>

#include "agent/service.h"
#include "base/descriptor_limit.h"
#include "base/log.h"
#include "base/process.h"
#include "base/signals.h"
#include "vmm/vmm.h"

namespace stasis::agent {
namespace {

constexpr size_t kMaxSocketPath = 107;
constexpr int kMaxMessage = 64 << 20;  // a command with its whole standard input
constexpr int kMaxThreads = 256;       // each blocked operation or stream takes one
constexpr std::chrono::seconds kDrain{2};

Result<std::string> choose_vmm(const std::string& wanted) {
  if (wanted == "qemu" || wanted == "firecracker") return wanted;
  if (wanted != "auto")
    return fail(Code::kInvalidArgument, "'" + wanted + "' is no VMM", "use auto, qemu or firecracker");
  return std::string(vmm::probe_kvm().works && vmm::probe_firecracker() ? "firecracker" : "qemu");
}

}  // namespace

struct Agent::State {
  std::unique_ptr<Host> host;
  std::unique_ptr<Service> service;
  std::unique_ptr<grpc::Server> server;
  Path socket;
};

Agent::Agent(std::unique_ptr<State> state) : state_(std::move(state)) {}

Result<std::unique_ptr<Agent>> Agent::start(const AgentOptions& options) {
  if (options.socket.native().size() > kMaxSocketPath) {
    return fail(Code::kInvalidArgument, "socket path " + options.socket.string() + " is longer than 107 bytes",
                "use a state directory with a shorter path");
  }
  auto state = std::make_unique<State>();
  HostOptions host;
  host.state_dir = options.state_dir;
  host.images = options.images;
  host.warm_bases = options.warm_bases;
  host.spares = options.spares;
  host.supervisor_program = options.supervisor_program;
  host.files_program = options.files_program;
  STASIS_ASSIGN(const Path bin, executable_directory());
  if (host.supervisor_program.empty()) host.supervisor_program = bin / "stasis-supervisor";
  if (host.files_program.empty()) host.files_program = bin / "stasis-files";
  STASIS_ASSIGN(host.vmm, choose_vmm(options.vmm));
  STASIS_ASSIGN(state->host, Host::open(host));
  state->service = std::make_unique<Service>(*state->host);
  state->socket = options.socket;

  (void)real_file_system().remove(options.socket);  // of an agent that was killed; the lock says that it has gone
  grpc::ServerBuilder builder;
  grpc::ResourceQuota quota;
  quota.SetMaxThreads(kMaxThreads);
  builder.SetResourceQuota(quota);
  builder.SetMaxReceiveMessageSize(kMaxMessage);
  builder.AddListeningPort("unix:" + options.socket.string(), grpc::InsecureServerCredentials());
  builder.RegisterService(state->service.get());
  const mode_t before = ::umask(0177);  // the socket is 0600 from its first moment
  state->server = builder.BuildAndStart();
  ::umask(before);
  if (!state->server) return fail(Code::kInternal, "cannot listen on " + options.socket.string());
  spdlog::info("serves on {} with {}", options.socket.string(), host.vmm);
  return std::unique_ptr<Agent>(new Agent(std::move(state)));
}

Agent::~Agent() {
  state_->host->stop();
  state_->server->Shutdown(std::chrono::system_clock::now() + kDrain);
  state_->server->Wait();
  state_->service.reset();
  state_->host.reset();
  (void)real_file_system().remove(state_->socket);
}

Status run_agent(const AgentOptions& options) {
  start_logging("agent");
  raise_descriptor_limit();
  STASIS_ASSIGN(const UniqueFd signals, take_signals({SIGTERM, SIGINT}));
  STASIS_ASSIGN(const auto agent, Agent::start(options));
  STASIS_TRY(wait_readable(signals.get(), Deadline::never()));
  spdlog::info("stops; sandboxes go on");
  return {};
}

}  // namespace stasis::agent
