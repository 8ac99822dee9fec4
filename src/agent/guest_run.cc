// GuestClient::run: one command, from its start to its end.
#include <array>
#include <thread>

#include "agent/envelopes.h"
#include "agent/guest_answer.h"
#include "agent/guest_client.h"
#include "base/base64.h"

namespace stasis::agent {
namespace {

using nlohmann::json;

// The daemon sends a keepalive at least this often (asked for with Keepalive-Ping-Interval). Silence may also mean that
// the guest stands still for a snapshot; that its sandbox has ended is seen at once.
constexpr int kKeepaliveSeconds = 20;
constexpr Milliseconds kStreamSilence{5 * 60'000};
constexpr size_t kStdinPiece = 256 << 10;
constexpr size_t kMaxRefusal = 64 << 10;

json start_message(const Command& command) {
  json process{{"cmd", command.program}, {"args", command.args}, {"envs", command.env}};
  if (!command.cwd.empty()) process["cwd"] = command.cwd;
  return {{"process", process}, {"stdin", !command.stdin_data.empty()}};
}

}  // namespace

class CommandRun {
 public:
  CommandRun(const GuestClient& client, const Command& command, const CommandEvents& events, int cancel_fd, Event over)
      : client_(client), command_(command), events_(events), cancel_fd_(cancel_fd), over_(std::move(over)) {}
  ~CommandRun() { end_feeder(); }
  CommandRun(const CommandRun&) = delete;
  CommandRun& operator=(const CommandRun&) = delete;

  Result<CommandEnd> run(GuestConnection& connection) {
    connection_ = &connection;
    Result<CommandEnd> result = follow();
    if (!result && result.error().code == Code::kCancelled && pid_) kill();
    end_feeder();
    if (!fed_) return fail(std::move(fed_).error().with_context("send standard input"));
    return result;
  }

 private:
  Result<CommandEnd> follow() {
    http::response_parser<http::buffer_body> parser;
    parser.body_limit(boost::none);
    boost::system::error_code code;
    http::read_header(connection_->stream(), connection_->buffer(), parser, code);
    if (code) return fail(connection_->failure(code, "start the command"));
    const unsigned status = parser.get().result_int();
    std::string refusal;
    while (!parser.is_done()) {
      STASIS_ASSIGN(const std::string_view bytes, read_piece(parser));
      if (status == 200) {
        STASIS_TRY(take_bytes(bytes));
      } else if (refusal.size() < kMaxRefusal) {
        refusal.append(bytes);
      }
    }
    if (status != 200) return fail(guest_error(status, refusal));
    if (!end_)
      return fail(Code::kUnavailable, "the guest daemon ended the stream without saying how the command ended");
    return *end_;
  }

  Result<std::string_view> read_piece(http::response_parser<http::buffer_body>& parser) {
    auto& body = parser.get().body();
    body.data = piece_.data();
    body.size = piece_.size();
    boost::system::error_code code;
    connection_->stream().set_deadline(Deadline::after(kStreamSilence));
    http::read_some(connection_->stream(), connection_->buffer(), parser, code);
    if (code == http::error::need_buffer) code = {};
    if (code) return fail(connection_->failure(code, "follow the command"));
    return std::string_view(piece_.data(), piece_.size() - body.size);
  }

  Status take_bytes(std::string_view bytes) {
    envelopes_.add(bytes);
    for (;;) {
      STASIS_ASSIGN(const std::optional<Envelope> envelope, envelopes_.next());
      if (!envelope) return {};
      const json message = json::parse(envelope->payload, nullptr, false);
      if (!message.is_object())
        return fail(Code::kInternal, "the guest daemon sent an envelope that is no JSON object");
      if (!envelope->last) {
        STASIS_TRY(take_message(message));
      } else if (const json* error = object_field(message, "error")) {
        return fail(guest_error(500, *error));
      }
    }
  }

  Status take_message(const json& message) {
    const json* event = object_field(message, "event");
    if (event == nullptr) return {};
    if (const json* start = object_field(*event, "start")) return take_start(*start);
    if (const json* data = object_field(*event, "data")) {
      STASIS_TRY(pass_on(text_field(*data, "stdout"), events_.out));
      return pass_on(text_field(*data, "stderr"), events_.err);
    }
    if (const json* end = object_field(*event, "end")) {
      end_ = CommandEnd{static_cast<int>(number_field(*end, "exitCode")), text_field(*end, "status")};
    }
    return {};
  }

  // Only from here on a cancel can be honoured: what is to be killed has a number now.
  Status take_start(const json& start) {
    if (pid_) return fail(Code::kInternal, "the guest daemon said twice that the command has started");
    pid_ = static_cast<uint32_t>(number_field(start, "pid"));
    connection_->stream().add_interrupt(cancel_fd_, {Code::kCancelled, "cancelled"});
    if (events_.started) events_.started(*pid_);
    // A thread of its own: a command that answers before it has read everything would wait for us, and we for it.
    if (!command_.stdin_data.empty()) {
      feeder_ = std::thread([this, pid = *pid_] {
        fed_ = feed(pid);
        if (!fed_) kill();  // it must not take a part for the whole, or wait for an end that does not come
      });
    }
    return {};
  }

  static Status pass_on(const std::string& encoded, const std::function<void(std::string_view)>& sink) {
    if (encoded.empty() || !sink) return {};
    STASIS_ASSIGN(const std::string bytes, base64_decode(encoded));
    sink(bytes);
    return {};
  }

  Status feed(uint32_t pid) const {
    for (size_t at = 0; at < command_.stdin_data.size(); at += kStdinPiece) {
      const std::string piece = command_.stdin_data.substr(at, kStdinPiece);
      const json body{{"process", {{"pid", pid}}}, {"input", {{"stdin", base64_encode(piece)}}}};
      // No deadline: a command may take its time to read.
      auto sent = client_.call("process.Process/SendInput", body, "", {Deadline::never(), over_.fd()});
      if (!sent && has_ended(sent.error().code)) return {};  // without reading everything: its right
      if (!sent) return fail(std::move(sent).error());
    }
    const auto closed = client_.call("process.Process/CloseStdin", {{"process", {{"pid", pid}}}}, "",
                                     {Deadline::after(kGuestCallDeadline), over_.fd()});
    if (closed || has_ended(closed.error().code)) return {};
    return fail(closed.error());
  }

  void end_feeder() {
    over_.set();
    if (feeder_.joinable()) feeder_.join();
  }

  static bool has_ended(Code code) {
    return code == Code::kNotFound || code == Code::kFailedPrecondition || code == Code::kUnavailable;
  }

  void kill() const {
    (void)client_.call("process.Process/SendSignal", {{"process", {{"pid", *pid_}}}, {"signal", "SIGNAL_SIGKILL"}}, "");
  }

  const GuestClient& client_;
  const Command& command_;
  const CommandEvents& events_;
  const int cancel_fd_;
  GuestConnection* connection_ = nullptr;
  EnvelopeDecoder envelopes_;
  std::array<char, 64 << 10> piece_;
  std::optional<uint32_t> pid_;
  std::optional<CommandEnd> end_;
  Event over_;
  std::thread feeder_;
  Status fed_;
};

Result<CommandEnd> GuestClient::run(const Command& command, const CommandEvents& events, int cancel_fd) const {
  STASIS_ASSIGN(GuestConnection connection, connect(Deadline::after(kGuestConnectDeadline)));
  auto ask = request(http::verb::post, "/process.Process/Start", command.user);
  ask.set(http::field::content_type, "application/connect+json");
  ask.set("Connect-Protocol-Version", "1");
  ask.set("Keepalive-Ping-Interval", std::to_string(kKeepaliveSeconds));
  if (command.timeout_ms > 0) ask.set("Connect-Timeout-Ms", std::to_string(command.timeout_ms));
  ask.body() = encode_envelope(start_message(command).dump());
  connection.stream().set_deadline(Deadline::after(kGuestCallDeadline));
  STASIS_TRY(connection.send(ask));
  STASIS_ASSIGN(Event over, Event::create());
  return CommandRun(*this, command, events, cancel_fd, std::move(over)).run(connection);
}

}  // namespace stasis::agent
