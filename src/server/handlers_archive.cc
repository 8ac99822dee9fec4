// Snapshots as streams of bytes, and compaction on request.
#include <fmt/format.h>

#include "base/uuid.h"
#include "server/handlers.h"
#include "server/json_codec.h"
#include "server/snapshot_names.h"

namespace stasis::server {
namespace {

constexpr std::string_view kBytes = "application/octet-stream";

std::string query_value(const HttpRequest& request, const std::string& name) {
  const auto found = request.query.find(name);
  return found == request.query.end() ? "" : found->second;
}

// 0 if there is none.
Result<uint64_t> number_in_query(const HttpRequest& request, const std::string& name) {
  const std::string text = query_value(request, name);
  uint64_t value = 0;
  if (text.empty() || parse_number(text, value)) return value;
  return fail(Code::kInvalidArgument, name + " is not a number of bytes");
}

// An error before the first byte is an ordinary answer, a later one cuts the answer off.
Result<HttpResponse> export_snapshot(Services& services, Exchange& exchange, const std::string& name) {
  STASIS_TRY(check_query(exchange.request(), {"from"}));
  pb::ExportSnapshotRequest request;
  STASIS_ASSIGN(const uint64_t from, number_in_query(exchange.request(), "from"));
  STASIS_ASSIGN(const TemplateRecord record, find_snapshot(services.store, name));
  request.set_snapshot_id(record.snapshot_id);
  request.set_name(name);
  request.set_from(from);
  bool begun = false;
  Status done = services.agent.export_snapshot(request, [&](std::string_view bytes) -> Status {
    if (!begun) STASIS_TRY(exchange.begin(kBytes));
    begun = true;
    return exchange.write(bytes);
  });
  if (!done && !begun) return fail(std::move(done).error());
  if (done) done = exchange.finish();
  HttpResponse response;
  response.sent = true;
  return response;
}

// As numbers of 64 bits are written in JSON here: 16 hexadecimal digits.
Result<uint64_t> checksum_in_query(const HttpRequest& request, const std::string& name) {
  const std::string text = query_value(request, name);
  uint64_t value = 0;
  const auto end = std::from_chars(text.data(), text.data() + text.size(), value, 16);
  if (text.size() == 16 && end.ec == std::errc() && end.ptr == text.data() + text.size()) return value;
  return fail(Code::kInvalidArgument, name + " is not 16 hexadecimal digits");
}

Status check_stream(const std::string& stream) {
  const auto id = Uuid::parse(stream);
  if (id && !id->is_nil()) return {};
  return fail(Code::kInvalidArgument, "the stream of an import is named by a UUID",
              "make one that follows from the archive, so that the same archive gives the same");
}

Result<ImportRequest> import_request(const HttpRequest& http) {
  STASIS_TRY(check_query(http, {"name", "overwrite", "stream", "kept_bytes", "kept_xxh3"}));
  if (!http.header("content-type").starts_with(kBytes)) {
    return fail(Code::kInvalidArgument, "an archive is sent as application/octet-stream",
                "set that Content-Type, and name the snapshot with ?name=");
  }
  const std::string overwrite = query_value(http, "overwrite");
  if (!overwrite.empty() && overwrite != "true" && overwrite != "false") {
    return fail(Code::kInvalidArgument, "overwrite is neither true nor false");
  }
  ImportRequest request{query_value(http, "name"), overwrite == "true", query_value(http, "stream")};
  if (!request.stream.empty()) STASIS_TRY(check_stream(request.stream));
  STASIS_ASSIGN(request.kept_bytes, number_in_query(http, "kept_bytes"));
  if (request.kept_bytes == 0) return request;
  if (request.stream.empty()) {
    return fail(Code::kInvalidArgument, "kept_bytes without a stream", "name the stream of which they are kept");
  }
  STASIS_ASSIGN(request.kept_checksum, checksum_in_query(http, "kept_xxh3"));
  return request;
}

Result<HttpResponse> import_snapshot(Services& services, Exchange& exchange) {
  STASIS_ASSIGN(const ImportRequest request, import_request(exchange.request()));
  STASIS_ASSIGN(const TemplateRecord record,
                services.operations.import_snapshot(request, [&] { return exchange.read_some(); }));
  return json_response(201, template_json(record));
}

Result<HttpResponse> kept_import(Services& services, Exchange& exchange, const std::string& stream) {
  STASIS_TRY(check_query(exchange.request(), {}));
  STASIS_TRY(check_stream(stream));
  STASIS_ASSIGN(const pb::KeptImport kept, services.agent.kept_import(stream));
  return json_response(200, {{"stream", stream},
                             {"kept_bytes", kept.bytes()},
                             {"kept_xxh3", fmt::format("{:016x}", kept.checksum())},
                             {"name", kept.name().empty() ? Json() : Json(kept.name())}});
}

Result<HttpResponse> forget_import(Services& services, Exchange& exchange, const std::string& stream) {
  STASIS_TRY(check_query(exchange.request(), {}));
  STASIS_TRY(check_stream(stream));
  STASIS_TRY(services.agent.forget_kept_import(stream));
  HttpResponse response;
  response.status = 204;
  return response;
}

Json compacted_json(const pb::CompactedSnapshot& snapshot, const std::string& name) {
  return {{"name", name.empty() ? Json() : Json(name)},
          {"snapshot_id", snapshot.snapshot_id()},
          {"spaces", snapshot.spaces()},
          {"layers_before", snapshot.layers_before()},
          {"live_bytes", snapshot.live_bytes()},
          {"read_bytes", snapshot.read_bytes()},
          {"stored_before", snapshot.stored_before()},
          {"stored_after", snapshot.stored_after()}};
}

// Ends it when the caller goes.
Result<pb::CompactStoreReply> run_compaction(Services& services, Exchange& exchange,
                                             const pb::CompactStoreRequest& request) {
  Cancellation cancellation;
  Result<pb::CompactStoreReply> reply;
  exchange.while_connected([&] { reply = services.agent.compact_store(request, cancellation); },
                           [&] { cancellation.cancel(); });
  return reply;
}

Result<HttpResponse> compact(Services& services, Exchange& exchange) {
  STASIS_TRY(check_query(exchange.request(), {}));
  STASIS_ASSIGN(const Json body, read_json(exchange));
  JsonReader reader(body);
  const std::string name = reader.text("name", 255).value_or("");
  STASIS_TRY(reader.finish());
  pb::CompactStoreRequest request;
  if (!name.empty()) {
    STASIS_ASSIGN(const TemplateRecord record, find_snapshot(services.store, name));
    request.set_snapshot_id(record.snapshot_id);
  }
  STASIS_ASSIGN(const pb::CompactStoreReply reply, run_compaction(services, exchange, request));
  Json snapshots = Json::array();
  for (const auto& snapshot : reply.snapshots()) snapshots.push_back(compacted_json(snapshot, name));
  return json_response(200, {{"snapshots", std::move(snapshots)}});
}

Result<HttpResponse> pack(Services& services, Exchange& exchange, const std::string& name) {
  STASIS_TRY(check_query(exchange.request(), {}));
  STASIS_ASSIGN(const TemplateRecord record, find_snapshot(services.store, name));
  pb::CompactStoreRequest request;
  request.set_snapshot_id(record.snapshot_id);
  request.set_packed(true);
  STASIS_ASSIGN(const pb::CompactStoreReply reply, run_compaction(services, exchange, request));
  if (reply.snapshots_size() != 1) return fail(Code::kInternal, "the host agent did not tell what it packed");
  return json_response(200, compacted_json(reply.snapshots(0), name));
}

}  // namespace

void add_archive_routes(Router& router, Services& services) {
  router.add("GET", "/v1/snapshots/{name}/export", [&services](Exchange& exchange, const PathParameters& path) {
    return export_snapshot(services, exchange, path.at("name"));
  });
  router.add("POST", "/v1/snapshots/import",
             [&services](Exchange& exchange, const PathParameters&) { return import_snapshot(services, exchange); });
  router.add("GET", "/v1/imports/{stream}", [&services](Exchange& exchange, const PathParameters& path) {
    return kept_import(services, exchange, path.at("stream"));
  });
  router.add("DELETE", "/v1/imports/{stream}", [&services](Exchange& exchange, const PathParameters& path) {
    return forget_import(services, exchange, path.at("stream"));
  });
  router.add("POST", "/v1/snapshots/{name}/pack", [&services](Exchange& exchange, const PathParameters& path) {
    return pack(services, exchange, path.at("name"));
  });
  router.add("POST", "/v1/store/compact",
             [&services](Exchange& exchange, const PathParameters&) { return compact(services, exchange); });
}

}  // namespace stasis::server
