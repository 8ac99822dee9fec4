#include "guest/init_handler.h"

#include "guest/json_fields.h"
#include "guest/text.h"
#include "guest/version.h"

namespace stasis::guest {
namespace {

constexpr size_t kMaxBody = size_t{4} << 20;

}  // namespace

struct InitHandler::Request {
  std::string token;
  std::map<std::string, std::string> variables;
  std::optional<int64_t> time_ns;
  std::string default_user;
  std::string default_workdir;
  std::string hostname;
  std::string machine_id;
  std::string entropy;
  std::string sandbox_id;
  std::string template_id;
  std::string previous_token;
};

Result<InitHandler::Request> InitHandler::parse(std::string_view body) {
  auto json = parse_object(body.empty() ? "{}" : body);
  if (!json) return fail(Code::kInvalidArgument, "the body is not a JSON object");
  Request request;
  STASIS_ASSIGN(request.token, string_field(*json, "accessToken"));
  STASIS_ASSIGN(request.variables, map_field(*json, "envVars"));
  STASIS_ASSIGN(request.default_user, string_field(*json, "defaultUser"));
  STASIS_ASSIGN(request.default_workdir, string_field(*json, "defaultWorkdir"));
  STASIS_ASSIGN(std::string time, string_field(*json, "timestamp"));
  if (!time.empty()) {
    request.time_ns = parse_rfc3339(time);
    if (!request.time_ns) return fail(Code::kInvalidArgument, "timestamp '" + time + "' is not RFC 3339");
  }
  const nlohmann::json* own = json_field(*json, "stasis");
  if (!own) return request;
  if (!own->is_object()) return fail(Code::kInvalidArgument, "field 'stasis' is not an object");
  STASIS_ASSIGN(request.hostname, string_field(*own, "hostname"));
  STASIS_ASSIGN(request.machine_id, string_field(*own, "machineId"));
  STASIS_ASSIGN(request.sandbox_id, string_field(*own, "sandboxId"));
  STASIS_ASSIGN(request.template_id, string_field(*own, "templateId"));
  STASIS_ASSIGN(request.previous_token, string_field(*own, "previousAccessToken"));
  STASIS_ASSIGN(std::string entropy, string_field(*own, "entropy"));
  auto bytes = base64_decode(entropy);
  if (!bytes) return fail(Code::kInvalidArgument, "entropy is not base64");
  request.entropy = std::move(*bytes);
  if (!request.hostname.empty() && !valid_hostname(request.hostname)) {
    return fail(Code::kInvalidArgument, "'" + request.hostname + "' is not a host name");
  }
  if (!request.machine_id.empty() && !valid_machine_id(request.machine_id)) {
    return fail(Code::kInvalidArgument, "machineId is not 32 lower-case hexadecimal digits");
  }
  return request;
}

void InitHandler::handle(Exchange& exchange) {
  if (exchange.method() != "POST") return send_http_error(exchange, 405, "method not allowed");
  auto body = exchange.read_whole_body(kMaxBody);
  if (!body) return send_http_error(exchange, 400, body.error().message);
  const InitAnswer answer = init(*body, exchange.header("X-Access-Token"));
  if (answer.status != 204) return send_http_error(exchange, answer.status, answer.message);
  exchange.send(204, {{"X-Envd-Version", kEnvdVersion}, {"Cache-Control", "no-store"}}, "");
}

InitAnswer InitHandler::init(std::string_view body, const std::string& given_token) {
  auto request = parse(body);
  if (!request) return {400, request.error().message};
  std::lock_guard lock(mutex_);
  if (!request->default_user.empty() && !settings_.users().find(request->default_user)) {
    return {400, "there is no user '" + request->default_user + "'"};
  }
  if (!take_token(*request, given_token)) {
    return {401, "the access token is set already, and the request proves no knowledge of it"};
  }
  if (Status done = apply(*request); !done) {
    return {done.error().code == Code::kInvalidArgument ? 400 : 500, done.error().message};
  }
  return {};
}

bool InitHandler::take_token(const Request& request, const std::string& given_token) {
  std::optional<std::string> token;
  if (!request.token.empty()) token = request.token;
  return settings_.replace_token(token, {given_token, request.token, request.previous_token});
}

Status InitHandler::apply(const Request& request) {
  // Randomness first: nothing after it may hand out what another clone also has.
  if (!request.entropy.empty()) STASIS_TRY(add_entropy(scope_, request.entropy));
  if (request.time_ns) STASIS_TRY(correct_clock(scope_, *request.time_ns));
  STASIS_TRY(apply_identity(request));
  settings_.merge_environment(request.variables);
  if (!request.default_user.empty()) settings_.set_default_user(request.default_user);
  if (!request.default_workdir.empty()) settings_.set_default_workdir(request.default_workdir);
  if (!request.entropy.empty()) processes_.end_streams();
  return {};
}

Status InitHandler::apply_identity(const Request& request) {
  if (!request.hostname.empty()) STASIS_TRY(set_hostname(scope_, request.hostname));
  if (!request.machine_id.empty()) STASIS_TRY(set_machine_id(scope_, request.machine_id));
  std::map<std::string, std::string> variables;
  if (!request.sandbox_id.empty()) {
    variables["E2B_SANDBOX"] = "true";
    variables["E2B_SANDBOX_ID"] = request.sandbox_id;
  }
  if (!request.template_id.empty()) variables["E2B_TEMPLATE_ID"] = request.template_id;
  for (const auto& [name, value] : variables) STASIS_TRY(write_run_file(scope_, name, value));
  settings_.merge_environment(variables);
  return {};
}

}  // namespace stasis::guest
