#include "supervisor/control.h"

#include <algorithm>
#include <array>
#include <vector>

#include "base/log.h"
#include "base/network.h"
#include "base/signals.h"
#include "base/unix_socket.h"

namespace stasis::supervisor {
namespace {

using nlohmann::json;

// The agent holds one connection, and an adopting one another for a moment; more is somebody's mistake.
constexpr size_t kMaxClients = 16;
constexpr size_t kFirstClient =
    6;  // in the list of descriptors that are waited for: before it what the sandbox is made of
// A client that has begun a message finishes it at once: both ends are on this host.
constexpr Milliseconds kMessageDeadline{2'000};

class Control {
 public:
  Control(std::unique_ptr<Sandbox> sandbox, int listener, int signal_fd, UniqueFd client)
      : sandbox_(std::move(sandbox)), listener_(listener), signal_fd_(signal_fd) {
    if (client) clients_.push_back(std::move(client));
  }

  ExitRecord run();

 private:
  void accept_client();
  // False: the client has gone.
  bool serve_client(int socket);
  void answer(int socket, const Message& request);
  json dispatch(int socket, const json& request, bool& answered);
  Result<json> take_snapshot(const json& request, bool keep_running);
  Status send_guest_socket(int socket, const std::string& transport);
  void end(ExitRecord record);
  void machine_ended();

  std::unique_ptr<Sandbox> sandbox_;
  int listener_;
  int signal_fd_;
  std::vector<UniqueFd> clients_;
  std::optional<ExitRecord> ended_;
};

ExitRecord Control::run() {
  while (!ended_) {
    std::vector<int> fds{sandbox_->vmm_pidfd(),
                         sandbox_->failure_fd(),
                         sandbox_->disk_failure_fd(),
                         signal_fd_,
                         clients_.size() < kMaxClients ? listener_ : -1,
                         sandbox_->working_set_fd()};
    for (const UniqueFd& client : clients_) fds.push_back(client.get());
    auto ready = wait_any(fds, Deadline::never());
    if (!ready) {
      end({false, "supervisor failed", std::move(ready).error()});
      break;
    }
    if ((*ready)[0] || (*ready)[1] || (*ready)[2]) machine_ended();
    if (!ended_ && (*ready)[3] && read_signal(signal_fd_) != 0) end({true, "stopped: signal to the supervisor", {}});
    std::vector<UniqueFd> kept;
    for (size_t i = 0; i < clients_.size(); ++i) {
      const bool alive = ended_ || !(*ready)[kFirstClient + i] || serve_client(clients_[i].get());
      if (alive) kept.push_back(std::move(clients_[i]));
    }
    clients_ = std::move(kept);
    if (!ended_ && (*ready)[4]) accept_client();
    if (!ended_ && (*ready)[5]) sandbox_->keep_working_set();
  }
  return *ended_;
}

void Control::machine_ended() {
  Error error = sandbox_->end_of_vmm();
  std::string reason = error.message;
  end({false, std::move(reason), std::move(error)});
}

void Control::end(ExitRecord record) {
  record.pager = sandbox_->pager_report();
  sandbox_.reset();
  ended_ = std::move(record);
}

void Control::accept_client() {
  if (auto client = accept_unix(listener_, Milliseconds(0))) clients_.push_back(std::move(*client));
}

bool Control::serve_client(int socket) {
  auto request = receive_message(socket, kMessageDeadline);
  if (!request || !*request) return false;
  answer(socket, **request);
  return true;
}

void Control::answer(int socket, const Message& request) {
  bool answered = false;
  const json reply = dispatch(socket, json::parse(request.body, nullptr, false), answered);
  // A client that has gone meanwhile is no concern: what it asked for has been done and is recorded.
  if (!answered) (void)send_message(socket, reply.dump());
}

json Control::dispatch(int socket, const json& request, bool& answered) {
  const std::string op = request.is_object() ? request.value("op", "") : "";
  Result<json> result = json::object();
  if (op == "state") {
    result = to_json(sandbox_->state());
  } else if (op == "pager") {
    result = to_json(sandbox_->pager_report());
  } else if (op == "trace") {
    result = to_json(sandbox_->trace());
  } else if (op == "pause" || op == "snapshot") {
    result = take_snapshot(request, op == "snapshot");
  } else if (op == "connect") {
    if (Status sent = send_guest_socket(socket, request.value("transport", kTcp)); !sent) {
      result = fail(std::move(sent).error());
    } else {
      answered = true;
    }
  } else if (op == "stop") {
    end({true, "stopped: " + request.value("reason", "no reason given"), {}});
  } else {
    result = fail(Code::kInvalidArgument, "unknown request '" + op + "'");
  }
  return result ? json{{"ok", *result}} : json{{"error", to_json(result.error())}};
}

Result<json> Control::take_snapshot(const json& request, bool keep_running) {
  STASIS_ASSIGN(const Uuid uuid, Uuid::parse(request.value("snapshot_id", "")));
  Result<SnapshotReply> reply = sandbox_->take_snapshot({uuid}, keep_running);
  if (!reply) {
    spdlog::warn("snapshot {} failed: {}", uuid.text(), reply.error().message);
    return fail(std::move(reply).error());
  }
  if (!keep_running) end({true, "paused", {}});
  return to_json(*reply);
}

Status Control::send_guest_socket(int socket, const std::string& transport) {
  if (transport != kTcp && transport != kUdp)
    return fail(Code::kInvalidArgument, "unknown transport '" + transport + "'");
  STASIS_ASSIGN(const UniqueFd guest, ip_socket(transport == kTcp ? Transport::kTcp : Transport::kUdp));
  const std::array fds{guest.get()};
  return send_message(socket, json{{"ok", json::object()}}.dump(), fds);
}

}  // namespace

ExitRecord serve(std::unique_ptr<Sandbox> sandbox, int listener, int signal_fd, UniqueFd client) {
  return Control(std::move(sandbox), listener, signal_fd, std::move(client)).run();
}

}  // namespace stasis::supervisor
