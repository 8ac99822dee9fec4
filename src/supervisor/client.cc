#include "supervisor/client.h"

#include "base/process.h"

namespace stasis::supervisor {

using nlohmann::json;

Client::Client(UniqueFd socket, pid_t pid, UniqueFd pidfd)
    : socket_(std::move(socket)), pid_(pid), pidfd_(std::move(pidfd)) {}

Result<std::unique_ptr<Client>> Client::connect(const Path& dir) {
  STASIS_ASSIGN(UniqueFd socket, connect_unix(dir / kControlSocket));
  STASIS_ASSIGN(const pid_t pid, peer_pid(socket.get()));
  auto pidfd = open_pidfd(pid);
  if (!pidfd) return fail(Code::kUnavailable, "the supervisor of " + dir.string() + " has gone");
  return std::unique_ptr<Client>(new Client(std::move(socket), pid, std::move(*pidfd)));
}

Result<Message> Client::call(const json& request, Milliseconds deadline) {
  const std::lock_guard lock(mutex_);
  if (!socket_) return fail(Code::kUnavailable, "the connection to the supervisor is broken");
  auto exchange = [&]() -> Result<Message> {
    STASIS_TRY(send_message(socket_.get(), request.dump()));
    STASIS_ASSIGN(std::optional<Message> answer, receive_message(socket_.get(), deadline));
    if (!answer) return fail(Code::kUnavailable, "the supervisor has gone");
    return std::move(*answer);
  };
  Result<Message> answer = exchange();
  // After a lost or late answer the next one would be taken for it: this connection is of no use any more.
  if (!answer) close_connection();
  return answer;
}

void Client::close_connection() {
  const std::lock_guard lock(socket_mutex_);
  socket_.reset();
}

void Client::interrupt() {
  const std::lock_guard lock(socket_mutex_);
  if (socket_) shut_down_socket(socket_.get());
}

Result<json> Client::call_json(const json& request, Milliseconds deadline) {
  STASIS_ASSIGN(const Message message, call(request, deadline));
  const json answer = json::parse(message.body, nullptr, false);
  if (!answer.is_object()) return fail(Code::kInternal, "the supervisor's answer is no JSON object");
  if (answer.contains("error")) return fail(error_from_json(answer["error"]));
  return answer.value("ok", json::object());
}

Result<StateReply> Client::state(Milliseconds deadline) {
  STASIS_ASSIGN(const json answer, call_json({{"op", "state"}}, deadline));
  return state_from_json(answer);
}

Result<StateReply> Client::state_when_answered(Milliseconds deadline) {
  STASIS_ASSIGN(const json answer, call_json({{"op", "state"}, {"daemon_answers", true}}, deadline));
  return state_from_json(answer);
}

Result<PagerReport> Client::pager(Milliseconds deadline) {
  STASIS_ASSIGN(const json answer, call_json({{"op", "pager"}}, deadline));
  return report_from_json(answer);
}

Result<TraceReply> Client::trace(Milliseconds deadline) {
  STASIS_ASSIGN(const json answer, call_json({{"op", "trace"}}, deadline));
  return trace_from_json(answer);
}

Result<SnapshotReply> Client::pause(snapshot::SnapshotId id, Milliseconds deadline) {
  STASIS_ASSIGN(const json answer, call_json({{"op", "pause"}, {"snapshot_id", id.text()}}, deadline));
  return snapshot_from_json(answer);
}

Result<SnapshotReply> Client::snapshot(snapshot::SnapshotId id, Milliseconds deadline) {
  STASIS_ASSIGN(const json answer, call_json({{"op", "snapshot"}, {"snapshot_id", id.text()}}, deadline));
  return snapshot_from_json(answer);
}

Result<UniqueFd> Client::guest_socket(Transport transport, Milliseconds deadline) {
  const char* name = transport == Transport::kTcp ? kTcp : kUdp;
  STASIS_ASSIGN(Message message, call({{"op", "connect"}, {"transport", name}}, deadline));
  const json answer = json::parse(message.body, nullptr, false);
  if (answer.is_object() && answer.contains("error")) return fail(error_from_json(answer["error"]));
  if (message.fds.size() != 1) return fail(Code::kInternal, "the supervisor sent no socket");
  return std::move(message.fds.front());
}

Status Client::await_spare(Milliseconds deadline) {
  STASIS_TRY(call_json({{"op", "spare"}}, deadline));
  return {};
}

Status Client::become(const Path& sandbox_dir, Milliseconds deadline) {
  STASIS_TRY(call_json({{"op", "become"}, {"sandbox_dir", sandbox_dir.string()}}, deadline));
  return {};
}

Status Client::stop(const std::string& reason, Milliseconds deadline) {
  STASIS_TRY(call_json({{"op", "stop"}, {"reason", reason}}, deadline));
  return {};
}

}  // namespace stasis::supervisor
