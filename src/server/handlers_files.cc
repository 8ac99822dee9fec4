// Files of a sandbox: write and read (whole or streamed), list, make and remove.
#include "base/base64.h"
#include "server/handlers.h"
#include "server/json_codec.h"

namespace stasis::server {
namespace {

constexpr size_t kMaxPath = 4096;
constexpr size_t kMaxUser = 255;
constexpr uint32_t kMaxDepth = 64;
constexpr std::string_view kBytes = "application/octet-stream";

Status check_path(const std::string& path) {
  if (!path.empty() && path.size() <= kMaxPath && path.find('\0') == std::string::npos && is_utf8(path)) return {};
  return fail(Code::kInvalidArgument,
              "the path is empty, not text, or longer than " + std::to_string(kMaxPath) + " bytes",
              "name the file with \"path\" (in the query for bytes, in the JSON body else)");
}

Error agent_error(Services& services, Error error) {
  if (error.code == Code::kUnavailable) services.wake_reconciler();
  return error;
}

std::string query_value(const HttpRequest& request, const char* name) {
  const auto found = request.query.find(name);
  return found == request.query.end() ? "" : found->second;
}

// {path, user, depth} of a JSON body.
Result<pb::PathRequest> path_request(Exchange& exchange, const std::string& id, bool with_depth) {
  STASIS_ASSIGN(const Json body, read_json(exchange));
  JsonReader reader(body);
  pb::PathRequest request;
  request.set_sandbox_id(id);
  request.set_path(reader.text("path", kMaxPath).value_or(""));
  request.set_user(reader.text("user", kMaxUser).value_or(""));
  if (with_depth) request.set_depth(reader.number("depth", kMaxDepth).value_or(1));
  STASIS_TRY(reader.finish());
  STASIS_TRY(check_path(request.path()));
  return request;
}

Result<HttpResponse> write_bytes(Services& services, Exchange& exchange, const std::string& id) {
  const HttpRequest& request = exchange.request();
  STASIS_TRY(check_query(request, {"path", "user"}));
  pb::WriteFileRequest::Open open;
  open.set_sandbox_id(id);
  open.set_path(query_value(request, "path"));
  open.set_user(query_value(request, "user"));
  STASIS_TRY(check_path(open.path()));
  STASIS_TRY(services.operations.running(id));
  auto reply = services.agent.write_file(open, [&] { return exchange.read_some(); });
  if (!reply) return fail(agent_error(services, std::move(reply).error()));
  return json_response(200, {{"bytes", reply->bytes()}});
}

Result<HttpResponse> write_json(Services& services, Exchange& exchange, const std::string& id) {
  STASIS_ASSIGN(const Json body, read_json(exchange, kMaxContentBody));
  JsonReader reader(body);
  pb::WriteFileRequest::Open open;
  open.set_sandbox_id(id);
  open.set_path(reader.text("path", kMaxPath).value_or(""));
  open.set_user(reader.text("user", kMaxUser).value_or(""));
  const auto plain = reader.text("content", kMaxContentBody);
  const auto coded = reader.text("content_base64", kMaxContentBody);
  STASIS_TRY(reader.finish());
  STASIS_TRY(check_path(open.path()));
  if (plain.has_value() == coded.has_value()) {
    return fail(Code::kInvalidArgument, "exactly one of 'content' and 'content_base64' must be given");
  }
  std::string content = plain.value_or("");
  if (coded) {
    auto decoded = base64_decode(*coded);
    if (!decoded) return fail(std::move(decoded).error().with_context("field 'content_base64'"));
    content = std::move(*decoded);
  }
  STASIS_TRY(services.operations.running(id));
  constexpr size_t kPiece = 256 * 1024;
  std::string_view rest = content;
  auto reply = services.agent.write_file(open, [&]() -> Result<std::string_view> {
    const std::string_view piece = rest.substr(0, kPiece);
    rest.remove_prefix(piece.size());
    return piece;
  });
  if (!reply) return fail(agent_error(services, std::move(reply).error()));
  return json_response(200, {{"bytes", reply->bytes()}});
}

Result<HttpResponse> write(Services& services, Exchange& exchange, const std::string& id) {
  const std::string type = exchange.request().header("content-type");
  if (type.starts_with(kBytes)) return write_bytes(services, exchange, id);
  if (type.empty() || type.starts_with("application/json")) return write_json(services, exchange, id);
  return fail(Code::kInvalidArgument, "Content-Type '" + type + "' is not understood here",
              "send application/octet-stream with ?path=, or application/json");
}

// The bytes as they come. An error before the first one is an ordinary answer, a later one cuts the answer off.
Result<HttpResponse> read_bytes(Services& services, Exchange& exchange, const pb::ReadFileRequest& request) {
  bool begun = false;
  Status done = services.agent.read_file(request, [&](const pb::FileChunk& chunk) -> Status {
    if (!begun) STASIS_TRY(exchange.begin(kBytes));
    begun = true;
    return exchange.write(chunk.data());
  });
  if (!done && !begun) return fail(agent_error(services, std::move(done).error()));
  if (done && !begun) done = exchange.begin(kBytes);  // an empty file
  if (done) done = exchange.finish();
  HttpResponse response;
  response.sent = true;
  return response;
}

Result<HttpResponse> read_whole(Services& services, const pb::ReadFileRequest& request) {
  std::string content;
  Status done = services.agent.read_file(request, [&](const pb::FileChunk& chunk) -> Status {
    if (content.size() + chunk.data().size() > kMaxInlineBytes || chunk.size() > kMaxInlineBytes) {
      return fail(Code::kResourceExhausted, "the file is longer than 8 MiB",
                  "ask for its bytes with Accept: application/octet-stream");
    }
    content += chunk.data();
    return {};
  });
  if (!done) return fail(agent_error(services, std::move(done).error()));
  return json_response(200, {{"size", content.size()}, {"content_base64", base64_encode(content)}});
}

Result<HttpResponse> read(Services& services, Exchange& exchange, const std::string& id) {
  const HttpRequest& http = exchange.request();
  STASIS_TRY(check_query(http, {"path", "user"}));
  STASIS_ASSIGN(const Json body, read_json(exchange));
  JsonReader reader(body);
  pb::ReadFileRequest request;
  request.set_sandbox_id(id);
  request.set_path(reader.text("path", kMaxPath).value_or(query_value(http, "path")));
  request.set_user(reader.text("user", kMaxUser).value_or(query_value(http, "user")));
  STASIS_TRY(reader.finish());
  STASIS_TRY(check_path(request.path()));
  STASIS_TRY(services.operations.running(id));
  const bool bytes = http.header("accept").find(kBytes) != std::string::npos;
  return bytes ? read_bytes(services, exchange, request) : read_whole(services, request);
}

Result<HttpResponse> list(Services& services, Exchange& exchange, const std::string& id) {
  STASIS_ASSIGN(const pb::PathRequest request, path_request(exchange, id, true));
  STASIS_TRY(services.operations.running(id));
  auto reply = services.agent.list_dir(request);
  if (!reply) return fail(agent_error(services, std::move(reply).error()));
  Json entries = Json::array();
  for (const pb::DirEntry& entry : reply->entries()) entries.push_back(entry_json(entry));
  return json_response(200, {{"entries", std::move(entries)}});
}

Result<HttpResponse> change(Services& services, Exchange& exchange, const std::string& id,
                            Status (HostAgentApi::*call)(const pb::PathRequest&)) {
  STASIS_ASSIGN(const pb::PathRequest request, path_request(exchange, id, false));
  STASIS_TRY(services.operations.running(id));
  Status done = (services.agent.*call)(request);
  if (!done) return fail(agent_error(services, std::move(done).error()));
  return HttpResponse{204};
}

}  // namespace

void add_file_routes(Router& router, Services& services) {
  const std::string files = "/v1/sandboxes/{id}/files/";
  router.add("POST", files + "write", [&services](Exchange& exchange, const PathParameters& path) {
    return write(services, exchange, path.at("id"));
  });
  router.add("POST", files + "read", [&services](Exchange& exchange, const PathParameters& path) {
    return read(services, exchange, path.at("id"));
  });
  router.add("POST", files + "list", [&services](Exchange& exchange, const PathParameters& path) {
    return list(services, exchange, path.at("id"));
  });
  router.add("POST", files + "mkdir", [&services](Exchange& exchange, const PathParameters& path) {
    return change(services, exchange, path.at("id"), &HostAgentApi::make_dir);
  });
  router.add("POST", files + "remove", [&services](Exchange& exchange, const PathParameters& path) {
    return change(services, exchange, path.at("id"), &HostAgentApi::remove_path);
  });
}

}  // namespace stasis::server
