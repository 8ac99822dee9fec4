#include "agent/guest_client.h"

#include <array>

#include "agent/envelopes.h"
#include "base/base64.h"

namespace stasis::agent {
namespace {

using nlohmann::json;

constexpr Milliseconds kConnectDeadline{5'000};
constexpr Milliseconds kCallDeadline{60'000};
// The daemon sends a keepalive at least this often (asked for with Keepalive-Ping-Interval); three missed ones are
// silence.
constexpr int kKeepaliveSeconds = 20;
constexpr Milliseconds kStreamSilence{60'000 + 3'000};
constexpr uint64_t kMaxAnswer = 16 << 20;
constexpr size_t kStdinPiece = 256 << 10;
constexpr size_t kFilePiece = 256 << 10;

Code code_of_status(unsigned status) {
  switch (status) {
    case 400:
      return Code::kInvalidArgument;
    case 401:
      return Code::kUnauthenticated;
    case 404:
      return Code::kNotFound;
    case 409:
      return Code::kAlreadyExists;
    case 507:
      return Code::kResourceExhausted;
    default:
      return Code::kInternal;
  }
}

// An error answer of the daemon: {"code": word or number, "message": text}.
Error error_of(unsigned status, const std::string& body) {
  const json parsed = json::parse(body, nullptr, false);
  Error error{code_of_status(status), "the guest daemon answered " + std::to_string(status)};
  if (!parsed.is_object()) return error;
  if (parsed.contains("message") && parsed["message"].is_string()) error.message = parsed["message"].get<std::string>();
  if (parsed.contains("code") && parsed["code"].is_string())
    error.code = code_from_name(parsed["code"].get<std::string>());
  return error;
}

std::string percent_encoded(std::string_view text) {
  constexpr std::string_view kPlain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.~/";
  constexpr std::string_view kHex = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    if (kPlain.find(c) != std::string_view::npos) {
      out.push_back(c);
    } else {
      const auto byte = static_cast<unsigned char>(c);
      out += {'%', kHex[byte >> 4], kHex[byte & 15]};
    }
  }
  return out;
}

std::string files_target(const std::string& path, const std::string& user) {
  std::string target = "/files?path=" + percent_encoded(path);
  if (!user.empty()) target += "&username=" + percent_encoded(user);
  return target;
}

std::string text_field(const json& object, const char* name) {
  const auto field = object.find(name);
  return field != object.end() && field->is_string() ? field->get<std::string>() : "";
}

DirEntry entry_of(const json& object) {
  DirEntry entry;
  entry.name = text_field(object, "name");
  entry.path = text_field(object, "path");
  const std::string type = text_field(object, "type");
  entry.type = type == "FILE_TYPE_DIRECTORY" ? "directory" : type == "FILE_TYPE_SYMLINK" ? "symlink" : "file";
  entry.owner = text_field(object, "owner");
  entry.group = text_field(object, "group");
  entry.modified = text_field(object, "modifiedTime");
  const std::string size = text_field(object, "size");  // proto3 JSON: 64-bit numbers are strings
  entry.size = std::strtoull(size.c_str(), nullptr, 10);
  if (object.contains("mode") && object["mode"].is_number_unsigned()) entry.mode = object["mode"].get<uint32_t>();
  return entry;
}

json start_message(const Command& command) {
  json process{{"cmd", command.program}, {"args", command.args}, {"envs", command.env}};
  if (!command.cwd.empty()) process["cwd"] = command.cwd;
  return {{"process", process}, {"stdin", !command.stdin_data.empty()}};
}

}  // namespace

Result<GuestConnection> GuestClient::connect(Deadline deadline) const {
  STASIS_ASSIGN(UniqueFd socket, sockets_());
  STASIS_TRY(connect_tcp(socket.get(), address_, kGuestDaemonPort, deadline));
  GuestConnection connection(std::move(socket));
  connection.stream().set_deadline(deadline);
  return connection;
}

http::request<http::string_body> GuestClient::request(http::verb verb, const std::string& target,
                                                      const std::string& user) const {
  http::request<http::string_body> request{verb, target, 11};
  if (!token_.empty()) request.set("X-Access-Token", token_);
  if (!user.empty()) {
    const std::string name = user + ":";
    request.set(http::field::authorization, "Basic " + base64_encode(name));
  }
  return request;
}

Status GuestClient::health(Deadline deadline) const {
  STASIS_ASSIGN(GuestConnection connection, connect(deadline));
  auto ask = request(http::verb::get, "/health", "");
  STASIS_TRY(connection.send(ask));
  STASIS_ASSIGN(const auto answer, connection.receive(kMaxAnswer));
  if (answer.result_int() / 100 != 2) return fail(error_of(answer.result_int(), answer.body()));
  return {};
}

Status GuestClient::init(const json& body, Deadline deadline) const {
  STASIS_ASSIGN(GuestConnection connection, connect(deadline));
  auto ask = request(http::verb::post, "/init", "");
  ask.set(http::field::content_type, "application/json");
  ask.body() = body.dump();
  STASIS_TRY(connection.send(ask));
  STASIS_ASSIGN(const auto answer, connection.receive(kMaxAnswer));
  if (answer.result_int() / 100 != 2)
    return fail(error_of(answer.result_int(), answer.body()).with_context("init the guest"));
  return {};
}

Result<json> GuestClient::call(const std::string& rpc, const json& body, const std::string& user) const {
  STASIS_ASSIGN(GuestConnection connection, connect(Deadline::after(kConnectDeadline)));
  connection.stream().set_deadline(Deadline::after(kCallDeadline));
  auto ask = request(http::verb::post, "/" + rpc, user);
  ask.set(http::field::content_type, "application/json");
  ask.set("Connect-Protocol-Version", "1");
  ask.body() = body.dump();
  STASIS_TRY(connection.send(ask));
  STASIS_ASSIGN(const auto answer, connection.receive(kMaxAnswer));
  if (answer.result_int() != 200) return fail(error_of(answer.result_int(), answer.body()));
  json parsed = json::parse(answer.body(), nullptr, false);
  if (!parsed.is_object()) return fail(Code::kInternal, "the guest daemon's answer is no JSON object");
  return parsed;
}

Result<CommandEnd> GuestClient::run(const Command& command, const CommandEvents& events, int cancel_fd) const {
  STASIS_ASSIGN(GuestConnection connection, connect(Deadline::after(kConnectDeadline)));
  auto ask = request(http::verb::post, "/process.Process/Start", command.user);
  ask.set(http::field::content_type, "application/connect+json");
  ask.set("Connect-Protocol-Version", "1");
  ask.set("Keepalive-Ping-Interval", std::to_string(kKeepaliveSeconds));
  if (command.timeout_ms > 0) ask.set("Connect-Timeout-Ms", std::to_string(command.timeout_ms));
  ask.body() = encode_envelope(start_message(command).dump());
  connection.stream().set_deadline(Deadline::after(kCallDeadline));
  STASIS_TRY(connection.send(ask));
  connection.stream().set_cancel(cancel_fd);
  return follow(connection, command, events, cancel_fd);
}

Result<CommandEnd> GuestClient::follow(GuestConnection& connection, const Command& command, const CommandEvents& events,
                                       int /*cancel_fd*/) const {
  http::response_parser<http::buffer_body> parser;
  parser.body_limit(boost::none);
  boost::system::error_code code;
  http::read_header(connection.stream(), connection.buffer(), parser, code);
  if (code) return fail(connection.failure(code, "start the command"));

  EnvelopeDecoder envelopes;
  std::array<char, 64 << 10> piece;
  std::optional<CommandEnd> end;
  std::optional<uint32_t> pid;
  const auto take_event = [&](const json& message) -> Status {
    const json event = message.value("event", json::object());
    if (event.contains("start")) {
      pid = event["start"].value("pid", 0U);
      if (events.started) events.started(*pid);
      if (!command.stdin_data.empty()) return feed_stdin(*pid, command.stdin_data);
    } else if (event.contains("data")) {
      for (const auto& [name, sink] : {std::pair("stdout", &events.out), std::pair("stderr", &events.err)}) {
        if (!event["data"].contains(name) || !*sink) continue;
        STASIS_ASSIGN(const std::string bytes, base64_decode(text_field(event["data"], name)));
        (*sink)(bytes);
      }
    } else if (event.contains("end")) {
      end = CommandEnd{event["end"].value("exitCode", 0), text_field(event["end"], "status")};
    }
    return {};
  };
  const auto read_stream = [&]() -> Result<CommandEnd> {
    while (!parser.is_done()) {
      parser.get().body().data = piece.data();
      parser.get().body().size = piece.size();
      connection.stream().set_deadline(Deadline::after(kStreamSilence));
      http::read_some(connection.stream(), connection.buffer(), parser, code);
      if (code == http::error::need_buffer) code = {};
      if (code) return fail(connection.failure(code, "follow the command"));
      envelopes.add({piece.data(), piece.size() - parser.get().body().size});
      for (;;) {
        STASIS_ASSIGN(const std::optional<Envelope> envelope, envelopes.next());
        if (!envelope) break;
        const json message = json::parse(envelope->payload, nullptr, false);
        if (!message.is_object())
          return fail(Code::kInternal, "the guest daemon sent an envelope that is no JSON object");
        if (envelope->last && message.contains("error")) return fail(error_of(500, message["error"].dump()));
        if (!envelope->last) STASIS_TRY(take_event(message));
      }
    }
    if (parser.get().result_int() != 200) return fail(Code::kInternal, "the guest daemon refused to start the command");
    if (!end) return fail(Code::kUnavailable, "the guest daemon ended the stream without saying how the command ended");
    return *end;
  };
  Result<CommandEnd> result = read_stream();
  if (!result && result.error().code == Code::kCancelled && pid) kill(*pid);
  return result;
}

Status GuestClient::feed_stdin(uint32_t pid, const std::string& data) const {
  for (size_t at = 0; at < data.size(); at += kStdinPiece) {
    const std::string piece = data.substr(at, kStdinPiece);
    const json body{{"process", {{"pid", pid}}}, {"input", {{"stdin", base64_encode(piece)}}}};
    auto sent = call("process.Process/SendInput", body, "");
    if (!sent && sent.error().code == Code::kNotFound) return {};  // it has ended without reading everything: its right
    if (!sent) return fail(std::move(sent).error());
  }
  (void)call("process.Process/CloseStdin", {{"process", {{"pid", pid}}}}, "");
  return {};
}

void GuestClient::kill(uint32_t pid) const {
  (void)call("process.Process/SendSignal", {{"process", {{"pid", pid}}}, {"signal", "SIGNAL_SIGKILL"}}, "");
}

Status GuestClient::read_file(const std::string& path, const std::string& user,
                              const std::function<Status(uint64_t, std::string_view)>& take) const {
  STASIS_ASSIGN(GuestConnection connection, connect(Deadline::after(kConnectDeadline)));
  connection.stream().set_deadline(Deadline::after(kCallDeadline));
  auto ask = request(http::verb::get, files_target(path, user), user);
  STASIS_TRY(connection.send(ask));
  http::response_parser<http::buffer_body> parser;
  parser.body_limit(boost::none);
  boost::system::error_code code;
  http::read_header(connection.stream(), connection.buffer(), parser, code);
  if (code) return fail(connection.failure(code, "read " + path));
  const bool ok = parser.get().result_int() / 100 == 2;
  const uint64_t size = parser.content_length().value_or(0);
  std::string error_body;
  std::vector<char> piece(kFilePiece);
  if (ok) STASIS_TRY(take(size, {}));
  while (!parser.is_done()) {
    parser.get().body().data = piece.data();
    parser.get().body().size = piece.size();
    connection.stream().set_deadline(Deadline::after(kCallDeadline));
    http::read(connection.stream(), connection.buffer(), parser, code);
    if (code == http::error::need_buffer) code = {};
    if (code) return fail(connection.failure(code, "read " + path));
    const std::string_view got(piece.data(), piece.size() - parser.get().body().size);
    if (ok) {
      STASIS_TRY(take(size, got));
    } else if (error_body.size() < kFilePiece) {
      error_body.append(got);
    }
  }
  if (!ok) return fail(error_of(parser.get().result_int(), error_body));
  return {};
}

Result<uint64_t> GuestClient::write_file(const std::string& path, const std::string& user,
                                         const std::function<Result<std::string>()>& give) const {
  STASIS_ASSIGN(GuestConnection connection, connect(Deadline::after(kConnectDeadline)));
  auto head = request(http::verb::post, files_target(path, user), user);
  http::request<http::buffer_body> ask{head.base()};
  ask.set(http::field::host, "guest");
  ask.set(http::field::content_type, "application/octet-stream");
  ask.chunked(true);
  ask.body().data = nullptr;
  ask.body().more = true;
  http::request_serializer<http::buffer_body> serializer{ask};
  boost::system::error_code code;
  connection.stream().set_deadline(Deadline::after(kCallDeadline));
  http::write_header(connection.stream(), serializer, code);
  uint64_t total = 0;
  while (!code && ask.body().more) {
    STASIS_ASSIGN(std::string piece, give());
    total += piece.size();
    ask.body().data = piece.empty() ? nullptr : piece.data();
    ask.body().size = piece.size();
    ask.body().more = !piece.empty();
    connection.stream().set_deadline(Deadline::after(kCallDeadline));
    http::write(connection.stream(), serializer, code);
    if (code == http::error::need_buffer) code = {};
  }
  // The daemon may refuse (no such user, disk full) before it has read everything: its answer says why.
  auto answer = connection.receive(kMaxAnswer);
  if (answer && answer->result_int() / 100 != 2) return fail(error_of(answer->result_int(), answer->body()));
  if (code) return fail(connection.failure(code, "write " + path));
  if (!answer) return fail(std::move(answer).error());
  return total;
}

Result<std::vector<DirEntry>> GuestClient::list_directory(const std::string& path, const std::string& user,
                                                          uint32_t depth) const {
  STASIS_ASSIGN(const json answer,
                call("filesystem.Filesystem/ListDir", {{"path", path}, {"depth", depth == 0 ? 1 : depth}}, user));
  std::vector<DirEntry> entries;
  for (const json& object : answer.value("entries", json::array())) {
    if (object.is_object()) entries.push_back(entry_of(object));
  }
  return entries;
}

Status GuestClient::make_directory(const std::string& path, const std::string& user) const {
  STASIS_TRY(call("filesystem.Filesystem/MakeDir", {{"path", path}}, user));
  return {};
}

Status GuestClient::remove(const std::string& path, const std::string& user) const {
  STASIS_TRY(call("filesystem.Filesystem/Remove", {{"path", path}}, user));
  return {};
}

}  // namespace stasis::agent
