#include "supervisor/control.h"

#include <algorithm>
#include <array>
#include <bitset>
#include <optional>
#include <vector>

#include "base/log.h"
#include "base/network.h"
#include "base/signals.h"
#include "base/unix_socket.h"
#include "supervisor/snapshot_thread.h"

namespace stasis::supervisor {
namespace {

using nlohmann::json;

// The agent holds one connection, an adopting one another for a moment, and each call to the guest one until it has its
// socket.
constexpr size_t kMaxClients = 16;
// A client that has begun a message finishes it at once: both ends are on this host.
constexpr Milliseconds kMessageDeadline{2'000};

// The descriptors that are waited for, by their place in the list. Clients follow.
enum Awaited : size_t {
  kVmm,
  kPageServer,
  kDisk,
  kSignal,
  kListener,
  kWorkingSet,
  kVmmEvents,
  kSnapshot,
  kFirstClient
};

struct Connection {
  UniqueFd socket;
  std::optional<json> request = {};  // which waits until the snapshot has been taken
};

struct Taking {
  snapshot::SnapshotId id;
  int client;  // who asked for it
  std::unique_ptr<SnapshotThread> thread;
};

class Control {
 public:
  Control(std::unique_ptr<Sandbox> sandbox, int listener, int signal_fd, UniqueFd client)
      : sandbox_(std::move(sandbox)), listener_(listener), signal_fd_(signal_fd) {
    if (client) clients_.push_back({std::move(client)});
  }

  ExitRecord run();

 private:
  std::vector<int> awaited() const;
  void look_at_sandbox(const std::bitset<kMaxPolled>& ready);
  void serve_clients(const std::bitset<kMaxPolled>& ready);
  void accept_client();
  // False: the client has gone.
  bool serve_client(Connection& client);
  // False: the request must wait for the snapshot.
  bool answer(int socket, const json& request);
  Result<json> dispatch(const json& request);
  Result<json> pause(const json& request);
  void begin_snapshot(int socket, const json& request);
  void end_snapshot();
  void end(ExitRecord record);
  void machine_ended();

  std::unique_ptr<Sandbox> sandbox_;
  int listener_;
  int signal_fd_;
  std::vector<Connection> clients_;
  std::optional<Taking> taking_;
  std::optional<ExitRecord> ended_;
};

void reply(int socket, const Result<json>& result) {
  const json body = result ? json{{"ok", *result}} : json{{"error", to_json(result.error())}};
  // A client that has gone meanwhile is no concern: what it asked for has been done and is recorded.
  (void)send_message(socket, body.dump());
}

std::string op_of(const json& request) { return request.is_object() ? request.value("op", "") : ""; }

Status send_guest_socket(int socket, const std::string& transport) {
  if (transport != kTcp && transport != kUdp)
    return fail(Code::kInvalidArgument, "unknown transport '" + transport + "'");
  STASIS_ASSIGN(const UniqueFd guest, ip_socket(transport == kTcp ? Transport::kTcp : Transport::kUdp));
  const std::array fds{guest.get()};
  return send_message(socket, json{{"ok", json::object()}}.dump(), fds);
}

Result<snapshot::SnapshotId> snapshot_of(const json& request) {
  STASIS_ASSIGN(const Uuid uuid, Uuid::parse(request.value("snapshot_id", "")));
  return snapshot::SnapshotId{uuid};
}

Result<json> told(snapshot::SnapshotId id, const Result<SnapshotReply>& taken) {
  if (taken) return to_json(*taken);
  spdlog::warn("snapshot {} failed: {}", id.text(), taken.error().message);
  return fail(taken.error());
}

ExitRecord Control::run() {
  while (!ended_) {
    if (!taking_) sandbox_->take_vmm_events();
    const auto ready = wait_any(awaited(), Deadline::never());
    if (!ready) {
      end({false, "supervisor failed", ready.error()});
      break;
    }
    if ((*ready)[kSnapshot]) end_snapshot();
    if (!taking_) look_at_sandbox(*ready);
    serve_clients(*ready);
    if (!ended_ && (*ready)[kListener]) accept_client();
  }
  return *ended_;
}

// While a snapshot is taken the sandbox is the other thread's, and whatever happens to it waits.
std::vector<int> Control::awaited() const {
  const auto unless_taking = [&](int fd) { return taking_ ? -1 : fd; };
  std::vector<int> fds(kFirstClient, -1);
  fds[kVmm] = unless_taking(sandbox_->vmm_pidfd());
  fds[kPageServer] = unless_taking(sandbox_->failure_fd());
  fds[kDisk] = unless_taking(sandbox_->disk_failure_fd());
  fds[kSignal] = unless_taking(signal_fd_);
  fds[kListener] = clients_.size() < kMaxClients ? listener_ : -1;
  fds[kWorkingSet] = unless_taking(sandbox_->working_set_fd());
  fds[kVmmEvents] = unless_taking(sandbox_->vmm_events_fd());
  if (taking_) fds[kSnapshot] = taking_->thread->done_fd();
  for (const Connection& client : clients_) {
    const int fd = client.socket.get();
    fds.push_back(taking_ && taking_->client == fd ? -1 : fd);
  }
  return fds;
}

void Control::look_at_sandbox(const std::bitset<kMaxPolled>& ready) {
  if (ready[kVmm] || ready[kPageServer] || ready[kDisk]) machine_ended();
  if (!ended_ && ready[kSignal] && read_signal(signal_fd_) != 0) end({true, "stopped: signal to the supervisor", {}});
  if (!ended_ && ready[kWorkingSet]) sandbox_->keep_working_set();
}

void Control::serve_clients(const std::bitset<kMaxPolled>& ready) {
  std::vector<Connection> kept;
  for (size_t i = 0; i < clients_.size(); ++i) {
    Connection& client = clients_[i];
    const bool due = ready[kFirstClient + i] || (client.request && !taking_);
    if (ended_ || !due || serve_client(client)) kept.push_back(std::move(client));
  }
  clients_ = std::move(kept);
}

void Control::machine_ended() {
  Error error = sandbox_->end_of_vmm();
  std::string reason = error.message;
  end({false, std::move(reason), std::move(error)});
}

void Control::end(ExitRecord record) {
  taking_.reset();
  record.pager = sandbox_->pager_report();
  sandbox_.reset();
  ended_ = std::move(record);
}

void Control::accept_client() {
  if (auto client = accept_unix(listener_, Milliseconds(0))) clients_.push_back({std::move(*client)});
}

bool Control::serve_client(Connection& client) {
  if (!client.request) {
    auto message = receive_message(client.socket.get(), kMessageDeadline);
    if (!message || !*message) return false;
    client.request = json::parse((*message)->body, nullptr, false);
  } else if (taking_) {
    return false;  // it has not waited for its answer
  }
  if (answer(client.socket.get(), *client.request)) client.request.reset();
  return true;
}

bool Control::answer(int socket, const json& request) {
  const std::string op = op_of(request);
  if (op == "connect") {
    if (Status sent = send_guest_socket(socket, request.value("transport", kTcp)); !sent) {
      reply(socket, fail(std::move(sent).error()));
    }
  } else if (op == "pager") {
    reply(socket, to_json(sandbox_->pager_report()));
  } else if (taking_) {
    return false;
  } else if (op == "snapshot") {
    begin_snapshot(socket, request);
  } else {
    reply(socket, dispatch(request));
  }
  return true;
}

Result<json> Control::dispatch(const json& request) {
  const std::string op = op_of(request);
  if (op == "state") {
    if (request.value("daemon_answers", false)) sandbox_->daemon_answers();
    return to_json(sandbox_->state());
  }
  if (op == "trace") return to_json(sandbox_->trace());
  if (op == "pause") return pause(request);
  if (op == "stop") {
    end({true, "stopped: " + request.value("reason", "no reason given"), {}});
    return json::object();
  }
  return fail(Code::kInvalidArgument, "unknown request '" + op + "'");
}

// The guest stands still: nobody reaches it meanwhile, so this thread may do nothing else.
Result<json> Control::pause(const json& request) {
  STASIS_ASSIGN(const snapshot::SnapshotId id, snapshot_of(request));
  const auto taken = sandbox_->take_snapshot(id, false);
  if (taken) end({true, "paused", {}});
  return told(id, taken);
}

void Control::begin_snapshot(int socket, const json& request) {
  const auto begin = [&]() -> Status {
    STASIS_ASSIGN(const snapshot::SnapshotId id, snapshot_of(request));
    STASIS_ASSIGN(auto thread, SnapshotThread::start(*sandbox_, id));
    taking_ = Taking{id, socket, std::move(thread)};
    return {};
  };
  if (Status begun = begin(); !begun) reply(socket, fail(std::move(begun).error()));
}

void Control::end_snapshot() {
  reply(taking_->client, told(taking_->id, taking_->thread->result()));
  taking_.reset();
}

}  // namespace

ExitRecord serve(std::unique_ptr<Sandbox> sandbox, int listener, int signal_fd, UniqueFd client) {
  return Control(std::move(sandbox), listener, signal_fd, std::move(client)).run();
}

}  // namespace stasis::supervisor
