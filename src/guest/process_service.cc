#include "guest/process_service.h"

#include <signal.h>
#include <sys/stat.h>

#include <algorithm>

#include "guest/connect_codec.h"
#include "guest/json_fields.h"
#include "guest/text.h"

namespace stasis::guest {
namespace {

using nlohmann::json;

constexpr std::chrono::seconds kDefaultKeepalive{90};
constexpr std::chrono::seconds kInputLimit{3600};  // a process may take its time to read
// A stream waits no longer than this beyond a deadline at which the process was to be killed.
constexpr std::chrono::seconds kKillGrace{5};

const char* stream_name(Stream stream) {
  switch (stream) {
    case Stream::kStdout:
      return "stdout";
    case Stream::kStderr:
      return "stderr";
    case Stream::kPty:
      return "pty";
  }
  return "stdout";
}

json event(const char* name, json value) { return {{"event", {{name, std::move(value)}}}}; }

Result<int> signal_number(const json& request) {
  static const std::map<std::string, int> kSignals = {
      {"SIGNAL_SIGKILL", SIGKILL}, {"SIGNAL_SIGTERM", SIGTERM}, {"SIGNAL_SIGINT", SIGINT},  {"SIGNAL_SIGHUP", SIGHUP},
      {"SIGNAL_SIGQUIT", SIGQUIT}, {"SIGNAL_SIGUSR1", SIGUSR1}, {"SIGNAL_SIGUSR2", SIGUSR2}};
  const json* value = json_field(request, "signal");
  if (value && value->is_string()) {
    auto known = kSignals.find(value->get<std::string>());
    if (known != kSignals.end()) return known->second;
  }
  if (value && value->is_number_integer() && (*value == SIGKILL || *value == SIGTERM)) return value->get<int>();
  return fail(Code::kInvalidArgument, "signal must be SIGNAL_SIGKILL or SIGNAL_SIGTERM");
}

Result<TerminalSize> terminal_size(const json& pty) {
  TerminalSize size;
  const json* wanted = pty.is_object() ? json_field(pty, "size") : nullptr;
  if (!wanted || !wanted->is_object()) return size;
  STASIS_ASSIGN(uint64_t columns, number_field(*wanted, "cols", size.columns));
  STASIS_ASSIGN(uint64_t rows, number_field(*wanted, "rows", size.rows));
  if (columns > 65535 || rows > 65535) return fail(Code::kInvalidArgument, "terminal size is out of range");
  size.columns = static_cast<uint16_t>(columns);
  size.rows = static_cast<uint16_t>(rows);
  return size;
}

std::chrono::milliseconds keepalive_interval(const Exchange& exchange) {
  auto seconds = parse_number(exchange.header("Keepalive-Ping-Interval"));
  if (!seconds || *seconds == 0 || *seconds > 86400) return kDefaultKeepalive;
  return std::chrono::seconds(*seconds);
}

Status check_directory(const std::string& path) {
  struct stat info {};
  if (stat(path.c_str(), &info) != 0) return fail(Code::kInvalidArgument, "cwd '" + path + "' does not exist");
  if (!S_ISDIR(info.st_mode)) return fail(Code::kInvalidArgument, "cwd '" + path + "' is not a directory");
  return {};
}

std::vector<std::string> environment_of(const User& user, const Settings& settings,
                                        const std::map<std::string, std::string>& requested) {
  const char* path = getenv("PATH");
  std::map<std::string, std::string> all = {
      {"PATH", path ? path : "/usr/bin:/bin"}, {"HOME", user.home}, {"USER", user.name}, {"LOGNAME", user.name}};
  for (const auto& [name, value] : settings.environment()) all[name] = value;
  for (const auto& [name, value] : requested) all[name] = value;
  std::vector<std::string> out;
  out.reserve(all.size());
  for (const auto& [name, value] : all) out.emplace_back(name).append("=").append(value);
  return out;
}

bool holds_nul(const SpawnRequest& request) {
  auto bad = [](const std::string& text) { return text.find('\0') != std::string::npos; };
  return bad(request.program) || bad(request.directory) ||
         std::any_of(request.arguments.begin(), request.arguments.end(), bad) ||
         std::any_of(request.environment.begin(), request.environment.end(), bad);
}

}  // namespace

bool ProcessService::is_stream(std::string_view method) {
  return method == "Start" || method == "Connect" || method == "StreamInput";
}

Result<json> ProcessService::unary(std::string_view method, const json& request, Exchange& exchange) {
  if (method == "List") return list();
  if (method != "SendInput" && method != "CloseStdin" && method != "SendSignal" && method != "Update") {
    return fail(Code::kUnimplemented, "process.Process has no method " + std::string(method));
  }
  STASIS_ASSIGN(auto process, select(request));
  if (method == "SendInput") {
    STASIS_ASSIGN(auto timeout, parse_timeout(exchange.header("Connect-Timeout-Ms")));
    STASIS_TRY(
        send_input(*process, request, exchange,
                   Clock::now() + std::min<std::chrono::milliseconds>(timeout.value_or(kInputLimit), kInputLimit)));
  } else if (method == "CloseStdin") {
    STASIS_TRY(process->close_stdin());
  } else if (method == "SendSignal") {
    STASIS_ASSIGN(int number, signal_number(request));
    STASIS_TRY(process->signal(number));
  } else if (const json* pty = json_field(request, "pty")) {
    STASIS_ASSIGN(TerminalSize size, terminal_size(*pty));
    STASIS_TRY(process->resize(size.columns, size.rows));
  }
  return json::object();
}

json ProcessService::list() const {
  json processes = json::array();
  for (const auto& process : table_.running()) {
    json entry = {{"config", process->config()}, {"pid", process->pid()}};
    if (!process->tag().empty()) entry["tag"] = process->tag();
    processes.push_back(std::move(entry));
  }
  return processes.empty() ? json::object() : json{{"processes", std::move(processes)}};
}

Result<std::shared_ptr<GuestProcess>> ProcessService::select(const json& request) const {
  const json* selector = json_field(request, "process");
  if (!selector || !selector->is_object()) return fail(Code::kInvalidArgument, "no process is named");
  STASIS_ASSIGN(uint64_t pid, number_field(*selector, "pid", 0));
  STASIS_ASSIGN(std::string tag, string_field(*selector, "tag"));
  if (pid == 0 && tag.empty()) return fail(Code::kInvalidArgument, "a process is named by pid or tag");
  auto process = pid != 0 ? table_.find(static_cast<pid_t>(std::min<uint64_t>(pid, INT32_MAX))) : table_.find(tag);
  if (!process) {
    return fail(Code::kNotFound, pid != 0 ? "process with pid " + std::to_string(pid) + " not found"
                                          : "process with tag " + tag + " not found");
  }
  return process;
}

Status ProcessService::send_input(GuestProcess& process, const json& message, Exchange& exchange,
                                  Clock::time_point deadline) {
  const json* input = json_field(message, "input");
  if (!input || !input->is_object()) return fail(Code::kInvalidArgument, "no input in the request");
  bool to_pty = json_field(*input, "pty") != nullptr;
  STASIS_ASSIGN(std::string encoded, string_field(*input, to_pty ? "pty" : "stdin"));
  auto data = base64_decode(encoded);
  if (!data) return fail(Code::kInvalidArgument, "the input is not base64");
  return process.send_input(to_pty, *data, deadline, exchange.socket());
}

void ProcessService::stream(std::string_view method, Exchange& exchange) {
  const Headers head = {{"Content-Type", "application/connect+json"}};
  if (method == "StreamInput") {
    Status done = stream_input(exchange);
    exchange.begin_stream(200, head);
    if (done) exchange.write(message_envelope(json::object()));
    exchange.write(end_envelope(done ? std::nullopt : std::optional<Error>(done.error())));
    exchange.finish();
    return;
  }
  Result<std::shared_ptr<GuestProcess>> process = fail(Code::kInvalidArgument, "the request holds no message");
  auto timeout = parse_timeout(exchange.header("Connect-Timeout-Ms"));
  auto message = EnvelopeReader(exchange).next();
  if (!message) {
    process = fail(message.error());
  } else if (!timeout) {
    process = fail(timeout.error());
  } else if (*message) {
    process = method == "Start" ? start(**message, exchange) : select(**message);
  }
  exchange.begin_stream(200, head);
  std::optional<Error> error;
  if (process) {
    std::optional<Clock::time_point> deadline;
    if (*timeout) deadline = Clock::now() + **timeout;
    error = follow(*process, exchange, deadline, method == "Start");
  } else {
    error = process.error();
  }
  exchange.write(end_envelope(error));
  exchange.finish();
}

Result<std::shared_ptr<GuestProcess>> ProcessService::start(const json& request, Exchange& exchange) {
  STASIS_ASSIGN(ProcessTable::Start wanted, start_request(request, exchange));
  return table_.start(wanted);
}

Result<ProcessTable::Start> ProcessService::start_request(const json& request, Exchange& exchange) const {
  const json* config = json_field(request, "process");
  if (!config || !config->is_object()) return fail(Code::kInvalidArgument, "no process in the request");
  ProcessTable::Start start;
  SpawnRequest& spawn = start.spawn;
  STASIS_ASSIGN(spawn.user, settings_.user_of(exchange));
  STASIS_ASSIGN(spawn.program, string_field(*config, "cmd"));
  STASIS_ASSIGN(spawn.arguments, list_field(*config, "args"));
  STASIS_ASSIGN(std::string directory, string_field(*config, "cwd"));
  STASIS_ASSIGN(auto variables, map_field(*config, "envs"));
  STASIS_ASSIGN(spawn.stdin_open, bool_field(request, "stdin", true));
  STASIS_ASSIGN(start.tag, string_field(request, "tag"));
  STASIS_ASSIGN(start.timeout, parse_timeout(exchange.header("Connect-Timeout-Ms")));
  if (const json* pty = json_field(request, "pty")) {
    STASIS_ASSIGN(spawn.terminal, terminal_size(*pty));
  }
  spawn.directory = settings_.resolve_path(spawn.user, directory);
  spawn.environment = environment_of(spawn.user, settings_, variables);
  if (holds_nul(spawn)) return fail(Code::kInvalidArgument, "a zero byte in the command, its arguments or environment");
  STASIS_TRY(check_directory(spawn.directory));
  start.config = {{"cmd", spawn.program}, {"args", spawn.arguments}, {"envs", variables}, {"cwd", spawn.directory}};
  return start;
}

// Registers a stream for end_streams() as long as it is followed.
class ProcessService::OpenStream {
 public:
  OpenStream(ProcessService& service, const Socket& socket) : service_(service), socket_(socket) {
    std::lock_guard lock(service_.mutex_);
    service_.streams_.insert(&socket_);
  }
  OpenStream(const OpenStream&) = delete;
  OpenStream& operator=(const OpenStream&) = delete;
  OpenStream(OpenStream&&) = delete;
  OpenStream& operator=(OpenStream&&) = delete;
  ~OpenStream() {
    std::lock_guard lock(service_.mutex_);
    service_.streams_.erase(&socket_);
  }

 private:
  ProcessService& service_;
  const Socket& socket_;
};

void ProcessService::end_streams() {
  std::lock_guard lock(mutex_);
  for (const Socket* socket : streams_) socket->shut_down();
}

std::optional<Error> ProcessService::follow(const std::shared_ptr<GuestProcess>& process, Exchange& exchange,
                                            std::optional<Clock::time_point> deadline, bool starter) {
  const auto keepalive = keepalive_interval(exchange);
  const auto grace = starter ? std::chrono::milliseconds(kKillGrace) : std::chrono::milliseconds(0);
  const Error too_late{Code::kDeadlineExceeded, "the deadline of the call has passed"};
  const OpenStream open(*this, exchange.socket());
  exchange.socket().let_peer_take_its_time();
  Subscription subscription(process, exchange.socket(), starter);
  bool alive = exchange.write(message_envelope(event("start", {{"pid", process->pid()}})));
  auto last_sent = Clock::now();
  while (alive) {
    auto until = last_sent + keepalive;
    if (deadline) until = std::min(until, *deadline + grace);
    auto item = subscription.next(until);
    switch (item.what) {
      case Subscription::What::kGone:
        return std::nullopt;
      case Subscription::What::kEnd:
        if (item.end.timed_out && starter) return too_late;
        exchange.write(message_envelope(event("end", end_event(item.end))));
        return std::nullopt;
      case Subscription::What::kOutput:
        alive = exchange.write(
            message_envelope(event("data", {{stream_name(item.output.stream), base64_encode(item.output.data)}})));
        if (alive) subscription.wrote(item.output);
        last_sent = Clock::now();
        break;
      case Subscription::What::kIdle:
        if (Clock::now() < last_sent + keepalive) break;
        alive = exchange.write(message_envelope(event("keepalive", json::object())));
        last_sent = Clock::now();
        break;
    }
    if (deadline && Clock::now() >= *deadline + grace) return too_late;
  }
  return std::nullopt;
}

Status ProcessService::stream_input(Exchange& exchange) {
  EnvelopeReader reader(exchange);
  exchange.socket().idle_limit = kInputLimit;
  std::shared_ptr<GuestProcess> process;
  for (;;) {
    STASIS_ASSIGN(auto message, reader.next());
    if (!message) break;
    if (const json* start = json_field(*message, "start"); start && start->is_object()) {
      STASIS_ASSIGN(process, select(*start));
    } else if (const json* data = json_field(*message, "data"); data && data->is_object()) {
      if (!process) return fail(Code::kInvalidArgument, "data came before the start message");
      STASIS_TRY(send_input(*process, *data, exchange, Clock::now() + kInputLimit));
    }
  }
  exchange.socket().idle_limit = Socket::kDefaultLimit;
  return {};
}

}  // namespace stasis::guest
