#include "guest/daemon.h"

#include "guest/connect_codec.h"
#include "guest/text.h"

namespace stasis::guest {
namespace {

constexpr std::string_view kProcess = "/process.Process/";
constexpr std::string_view kFilesystem = "/filesystem.Filesystem/";
constexpr std::string_view kStreamType = "application/connect+json";
constexpr std::string_view kUnaryType = "application/json";

// Calls of the protocol that are not offered; what is not a call of it at all is a path that does not exist.
bool is_watch_call(std::string_view method) {
  return method == "CreateWatcher" || method == "GetWatcherEvents" || method == "RemoveWatcher";
}

std::string media_type(const Exchange& exchange) {
  std::string type = lower_case(exchange.header("Content-Type"));
  type.resize(std::min(type.size(), type.find(';')));
  return type;
}

void send_json(Exchange& exchange, int status, const nlohmann::json& body) {
  exchange.send(status, {{"Content-Type", std::string(kUnaryType)}}, to_text(body));
}

void send_preflight(Exchange& exchange) {
  exchange.send(204,
                {{"Access-Control-Allow-Methods", "GET, HEAD, POST, PUT, PATCH, DELETE"},
                 {"Access-Control-Allow-Headers", "*, Authorization"},
                 {"Access-Control-Expose-Headers", "*"},
                 {"Access-Control-Max-Age", "7200"}},
                "");
}

}  // namespace

void Daemon::handle(Exchange& exchange) {
  const std::string& path = exchange.path();
  if (exchange.method() == "OPTIONS") return send_preflight(exchange);
  if (path == "/health") return exchange.send(204, {{"Cache-Control", "no-store"}}, "");
  if (path == "/init") return init_.handle(exchange);
  if (path == "/files") return files_.handle(exchange);
  if (!settings_.token_matches(exchange.header("X-Access-Token"))) {
    return send_http_error(exchange, 401, "unauthorized access: missing or wrong access token in X-Access-Token");
  }
  if (path == "/metrics") return send_json(exchange, 200, metrics_.read());
  if (path == "/envs") return send_json(exchange, 200, settings_.environment());
  rpc(exchange);
}

void Daemon::rpc(Exchange& exchange) {
  std::string_view path = exchange.path();
  bool process_service = path.starts_with(kProcess);
  if (!process_service && !path.starts_with(kFilesystem))
    return send_http_error(exchange, 404, "there is no such path");
  std::string_view method = path.substr(process_service ? kProcess.size() : kFilesystem.size());
  bool stream = process_service ? ProcessService::is_stream(method) : method == "WatchDir";
  if (exchange.method() != "POST") return exchange.send(405, {{"Allow", "POST"}}, "");
  if (media_type(exchange) != (stream ? kStreamType : kUnaryType)) {
    return exchange.send(415, {{"Accept-Post", std::string(stream ? kStreamType : kUnaryType)}}, "");
  }
  if (!stream) return unary(exchange, process_service, method);
  if (process_service) return processes_.stream(method, exchange);
  exchange.begin_stream(200, {{"Content-Type", std::string(kStreamType)}});
  exchange.write(end_envelope(Error{Code::kUnimplemented, "watching directories is not offered"}));
  exchange.finish();
}

void Daemon::unary(Exchange& exchange, bool process_service, std::string_view method) {
  auto answer = [&]() -> Result<nlohmann::json> {
    std::string encoding = exchange.header("Content-Encoding");
    if (!encoding.empty() && encoding != "identity") {
      return fail(Code::kUnimplemented, "compression '" + encoding + "' is not supported");
    }
    STASIS_ASSIGN(std::string body, exchange.read_whole_body(kMaxMessageBytes));
    auto request = parse_object(body.empty() ? "{}" : body);
    if (!request) return fail(Code::kInvalidArgument, "the request is not a JSON object");
    if (process_service) return processes_.unary(method, *request, exchange);
    return filesystem_.unary(method, *request, exchange);
  }();
  if (answer) return send_json(exchange, 200, *answer);
  bool unknown = answer.error().code == Code::kUnimplemented && !is_watch_call(method);
  send_json(exchange, unknown ? 404 : http_status(answer.error().code), error_json(answer.error()));
}

}  // namespace stasis::guest
