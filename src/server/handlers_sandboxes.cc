// /v1/sandboxes: create, list, get, destroy, pause, resume, ping.
#include <string>

#include "server/handlers.h"
#include "server/json_codec.h"

namespace stasis::server {
namespace {

constexpr size_t kMaxPage = 1000;
constexpr size_t kMaxMetadataEntries = 64;
constexpr size_t kMaxMetadataBytes = size_t{64} * 1024;
constexpr size_t kMaxEnvEntries = 1024;
constexpr size_t kMaxEnvBytes = size_t{256} * 1024;
constexpr uint32_t kAnyNumber = UINT32_MAX;  // the operation knows the limits

bool valid_env(const Json& env) {
  for (const auto& [name, value] : env.items()) {
    if (name.empty() || name.find('=') != std::string::npos || name.find('\0') != std::string::npos ||
        value.get_ref<const std::string&>().find('\0') != std::string::npos) {
      return false;
    }
  }
  return true;
}

RestoreOptions restore_options(JsonReader& reader) {
  RestoreOptions options;
  options.way = reader.text("restore", 16).value_or("");
  if (!options.way.empty() && options.way != "uffd" && options.way != "mapped") {
    reader.reject({Code::kInvalidArgument, "field 'restore' is neither 'uffd' nor 'mapped'", "leave it out"});
  }
  options.load_mib_per_s = reader.number("background_load_mib_per_s", kMaxLoadMibPerS).value_or(0);
  return options;
}

Result<CreateRequest> create_request(const Json& body) {
  JsonReader reader(body);
  CreateRequest request;
  if (auto name = reader.text("template", 255)) request.template_name = std::move(*name);
  request.vcpus = reader.number("vcpus", kAnyNumber);
  request.memory_mb = reader.number("memory_mb", kAnyNumber);
  request.disk_mb = reader.number("disk_mb", kAnyNumber);
  request.cold = reader.flag("cold").value_or(false);
  request.restore = restore_options(reader);
  if (request.cold && (!request.restore.way.empty() || request.restore.load_mib_per_s > 0)) {
    reader.reject({Code::kInvalidArgument, "a cold create boots: there is nothing to restore or to load",
                   "leave 'restore' and 'background_load_mib_per_s' out"});
  }
  request.timeout_sec = reader.number("timeout_sec", kMaxTimeoutSec).value_or(0);
  if (auto metadata = reader.text_map("metadata", kMaxMetadataEntries, kMaxMetadataBytes)) request.metadata = *metadata;
  if (auto env = reader.text_map("env", kMaxEnvEntries, kMaxEnvBytes)) request.env = *env;
  if (!valid_env(request.env)) {
    reader.reject({Code::kInvalidArgument, "field 'env' has a name or value that no environment can hold", ""});
  }
  STASIS_TRY(reader.finish());
  return request;
}

Result<std::optional<IdempotencyKey>> idempotency_key(const HttpRequest& request, const Json& body) {
  const auto found = request.headers.find("idempotency-key");
  if (found == request.headers.end()) return std::nullopt;
  const std::string& key = found->second;
  bool printable = !key.empty() && key.size() <= 255;
  for (const char c : key) printable = printable && c > ' ' && c < 127;
  if (!printable) return fail(Code::kInvalidArgument, "the Idempotency-Key is not 1 to 255 printable characters");
  return IdempotencyKey{key, body.dump()};
}

Result<HttpResponse> create(Services& services, Exchange& exchange) {
  STASIS_ASSIGN(const Json body, read_json(exchange));
  STASIS_ASSIGN(const CreateRequest request, create_request(body));
  STASIS_ASSIGN(const std::optional<IdempotencyKey> key, idempotency_key(exchange.request(), body));
  STASIS_ASSIGN(const CreateOutcome outcome, services.operations.create(request, key));
  if (outcome.key_mismatch) {
    return error_response(
        {Code::kInvalidArgument, "the Idempotency-Key was used for another request", "use a new key for a new request"},
        422);
  }
  return json_response(outcome.repeated ? 200 : 201, sandbox_json(outcome.sandbox));
}

Status parse_states(const std::string& text, std::vector<State>& states) {
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    const std::string name = text.substr(begin, end - begin);
    const auto state = state_from_name(name);
    if (!state) return fail(Code::kInvalidArgument, "'" + name + "' is not a state of a sandbox");
    states.push_back(*state);
    begin = end + 1;
  }
  return {};
}

std::string page_token(const SandboxRecord& last) { return std::to_string(last.created_ms) + "." + last.id; }

Status parse_page_token(const std::string& text, SandboxFilter& filter) {
  const size_t dot = text.find('.');
  int64_t created_ms = 0;
  if (dot == std::string::npos || !parse_number(std::string_view(text).substr(0, dot), created_ms)) {
    return fail(Code::kInvalidArgument, "page_token is not one that this server gave");
  }
  filter.after = {created_ms, text.substr(dot + 1)};
  return {};
}

Result<SandboxFilter> list_filter(const HttpRequest& request) {
  STASIS_TRY(check_query(request, {"state", "template", "metadata.", "limit", "page_token"}));
  SandboxFilter filter;
  for (const auto& [name, value] : request.query) {
    if (name == "state") {
      STASIS_TRY(parse_states(value, filter.states));
    } else if (name == "template") {
      filter.template_name = value;
    } else if (name == "page_token") {
      STASIS_TRY(parse_page_token(value, filter));
    } else if (name == "limit") {
      if (!parse_number(value, filter.limit) || filter.limit < 1 || filter.limit > kMaxPage) {
        return fail(Code::kInvalidArgument, "limit is not a number from 1 to " + std::to_string(kMaxPage));
      }
    } else {
      filter.metadata.emplace_back(name.substr(std::string_view("metadata.").size()), value);
    }
  }
  return filter;
}

Result<HttpResponse> list(Services& services, Exchange& exchange) {
  STASIS_ASSIGN(SandboxFilter filter, list_filter(exchange.request()));
  const size_t limit = filter.limit++;  // one more tells whether there is a next page
  STASIS_ASSIGN(std::vector<SandboxRecord> records,
                services.store.read([&](Tables& tables) { return tables.sandboxes.list(filter); }));
  Json token;
  if (records.size() > limit) {
    records.resize(limit);
    token = page_token(records.back());
  }
  Json sandboxes = Json::array();
  for (const SandboxRecord& record : records) sandboxes.push_back(sandbox_json(record));
  return json_response(200, {{"sandboxes", std::move(sandboxes)}, {"next_page_token", std::move(token)}});
}

Result<HttpResponse> get(Services& services, const std::string& id) {
  STASIS_ASSIGN(const SandboxRecord record,
                services.store.read([&](Tables& tables) { return tables.sandboxes.get(id); }));
  return json_response(200, sandbox_json(record));
}

Result<HttpResponse> pause(Services& services, Exchange& exchange, const std::string& id) {
  STASIS_ASSIGN(const Json body, read_json(exchange));
  STASIS_TRY(JsonReader(body).finish());
  STASIS_ASSIGN(const SandboxRecord record, services.operations.pause(id));
  return json_response(200, sandbox_json(record));
}

Result<std::optional<uint32_t>> timeout_of(Exchange& exchange) {
  STASIS_ASSIGN(const Json body, read_json(exchange));
  JsonReader reader(body);
  const std::optional<uint32_t> timeout = reader.number("timeout_sec", kMaxTimeoutSec);
  STASIS_TRY(reader.finish());
  return timeout;
}

Result<HttpResponse> resume(Services& services, Exchange& exchange, const std::string& id) {
  STASIS_ASSIGN(const Json body, read_json(exchange));
  JsonReader reader(body);
  const std::optional<uint32_t> timeout = reader.number("timeout_sec", kMaxTimeoutSec);
  const RestoreOptions options = restore_options(reader);
  STASIS_TRY(reader.finish());
  STASIS_ASSIGN(const SandboxRecord record, services.operations.resume(id, timeout, options));
  return json_response(200, sandbox_json(record));
}

Result<HttpResponse> rollback(Services& services, Exchange& exchange, const std::string& id) {
  STASIS_ASSIGN(const Json body, read_json(exchange));
  JsonReader reader(body);
  RollbackRequest request;
  const auto snapshot = reader.text("snapshot", 255);
  reader.require("snapshot", snapshot.has_value());
  request.timeout_sec = reader.number("timeout_sec", kMaxTimeoutSec);
  request.restore = restore_options(reader);
  STASIS_TRY(reader.finish());
  request.snapshot = *snapshot;
  STASIS_ASSIGN(const SandboxRecord record, services.operations.rollback(id, request));
  return json_response(200, sandbox_json(record));
}

Result<HttpResponse> ping(Services& services, Exchange& exchange, const std::string& id) {
  STASIS_ASSIGN(std::optional<uint32_t> timeout, timeout_of(exchange));
  if (timeout == 0) timeout.reset();  // for the agent 0 leaves the deadline where it is
  STASIS_ASSIGN(const pb::PingSandboxReply reply, services.operations.ping(id, timeout));
  return json_response(200,
                       {{"round_trip_us", reply.round_trip_us()}, {"deadline", time_json(reply.deadline_unix_ms())}});
}

}  // namespace

void add_sandbox_routes(Router& router, Services& services) {
  router.add("POST", "/v1/sandboxes",
             [&services](Exchange& exchange, const PathParameters&) { return create(services, exchange); });
  router.add("GET", "/v1/sandboxes",
             [&services](Exchange& exchange, const PathParameters&) { return list(services, exchange); });
  router.add("GET", "/v1/sandboxes/{id}",
             [&services](Exchange&, const PathParameters& path) { return get(services, path.at("id")); });
  router.add("DELETE", "/v1/sandboxes/{id}",
             [&services](Exchange&, const PathParameters& path) -> Result<HttpResponse> {
               STASIS_TRY(services.operations.destroy(path.at("id")));
               return HttpResponse{204};
             });
  router.add("POST", "/v1/sandboxes/{id}/pause", [&services](Exchange& exchange, const PathParameters& path) {
    return pause(services, exchange, path.at("id"));
  });
  router.add("POST", "/v1/sandboxes/{id}/resume", [&services](Exchange& exchange, const PathParameters& path) {
    return resume(services, exchange, path.at("id"));
  });
  router.add("POST", "/v1/sandboxes/{id}/rollback", [&services](Exchange& exchange, const PathParameters& path) {
    return rollback(services, exchange, path.at("id"));
  });
  router.add("POST", "/v1/sandboxes/{id}/ping", [&services](Exchange& exchange, const PathParameters& path) {
    return ping(services, exchange, path.at("id"));
  });
}

}  // namespace stasis::server
