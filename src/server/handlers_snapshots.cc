// /v1/snapshots: images and named snapshots.
#include "server/handlers.h"
#include "server/json_codec.h"
#include "server/snapshot_names.h"

namespace stasis::server {
namespace {

Result<HttpResponse> create(Services& services, Exchange& exchange) {
  const HttpRequest& http = exchange.request();
  STASIS_TRY(check_query(http, {"overwrite"}));
  STASIS_ASSIGN(const Json body, read_json(exchange));
  JsonReader reader(body);
  SnapshotRequest request;
  const auto sandbox_id = reader.text("sandbox_id", 255);
  const auto name = reader.text("name", 255);
  reader.require("sandbox_id", sandbox_id.has_value());
  reader.require("name", name.has_value());
  STASIS_TRY(reader.finish());
  request.sandbox_id = *sandbox_id;
  request.name = *name;
  if (const auto found = http.query.find("overwrite"); found != http.query.end()) {
    if (found->second != "true" && found->second != "false") {
      return fail(Code::kInvalidArgument, "overwrite is neither true nor false");
    }
    request.overwrite = found->second == "true";
  }
  STASIS_ASSIGN(const TemplateRecord record, services.operations.snapshot(request));
  return json_response(201, template_json(record));
}

Result<HttpResponse> list(Services& services, const HttpRequest& request) {
  STASIS_TRY(check_query(request, {"type"}));
  const auto found = request.query.find("type");
  const std::string type = found == request.query.end() ? "" : found->second;
  if (!type.empty() && type != "base" && type != "snapshot") {
    return fail(Code::kInvalidArgument, "type is neither base nor snapshot");
  }
  STASIS_ASSIGN(const std::vector<TemplateRecord> records,
                services.store.read([&](Tables& tables) { return tables.templates.list(type); }));
  Json snapshots = Json::array();
  for (const TemplateRecord& record : records) snapshots.push_back(template_json(record));
  return json_response(200, {{"snapshots", std::move(snapshots)}});
}

Result<HttpResponse> get(Services& services, const std::string& name) {
  STASIS_ASSIGN(const TemplateRecord record, find_snapshot(services.store, name));
  return json_response(200, template_json(record));
}

}  // namespace

void add_snapshot_routes(Router& router, Services& services) {
  router.add("POST", "/v1/snapshots",
             [&services](Exchange& exchange, const PathParameters&) { return create(services, exchange); });
  router.add("GET", "/v1/snapshots",
             [&services](Exchange& exchange, const PathParameters&) { return list(services, exchange.request()); });
  router.add("GET", "/v1/snapshots/{name}",
             [&services](Exchange&, const PathParameters& path) { return get(services, path.at("name")); });
  router.add("DELETE", "/v1/snapshots/{name}",
             [&services](Exchange&, const PathParameters& path) -> Result<HttpResponse> {
               STASIS_TRY(services.operations.delete_snapshot(path.at("name")));
               return HttpResponse{204};
             });
}

}  // namespace stasis::server
