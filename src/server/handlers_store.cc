// /v1/store, and the verification of snapshots.
#include "server/handlers.h"
#include "server/json_codec.h"
#include "server/snapshot_names.h"

namespace stasis::server {
namespace {

constexpr std::string_view kLines = "application/x-ndjson";
constexpr uint32_t kMaxGraceSec = 366 * 24 * 3600;

Json or_null(const std::string& text) { return text.empty() ? Json() : Json(text); }

Json damage_json(const pb::Damage& damage, const std::map<std::string, Referrers>& known) {
  Json snapshots = Json::array();
  for (const std::string& id : damage.snapshot_ids()) snapshots.push_back(reference_json(id, known));
  return {{"type", "damage"},
          {"file", damage.file()},
          {"frame", damage.has_frame() ? Json(damage.frame()) : Json()},
          {"message", damage.message()},
          {"snapshots", std::move(snapshots)}};
}

Json event_json(const pb::VerifyEvent& event, const std::map<std::string, Referrers>& known) {
  if (event.has_damage()) return damage_json(event.damage(), known);
  if (event.has_progress()) {
    const pb::VerifyProgress& progress = event.progress();
    return {{"type", "progress"},
            {"bytes", progress.bytes()},
            {"total_bytes", progress.total_bytes()},
            {"layers", progress.layers()},
            {"total_layers", progress.total_layers()}};
  }
  const pb::VerifyDone& done = event.done();
  return {{"type", "done"},          {"snapshots", done.snapshots()}, {"layers", done.layers()},
          {"frames", done.frames()}, {"bytes", done.bytes()},         {"damages", done.damages()}};
}

std::string line_of(const Json& event) { return event.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n"; }

Json error_json(const Error& error) {
  Json message = Json::parse(error_response(error).body);
  message["type"] = "error";
  return message;
}

// One JSON object a line. An error before the first line is an ordinary answer, a later one the last line. A client
// that has gone shows in a write that fails, and that ends the verification.
Result<HttpResponse> verify(Services& services, Exchange& exchange, const pb::VerifySnapshotsRequest& request) {
  STASIS_ASSIGN(const Json body, read_json(exchange));
  JsonReader reader(body);
  STASIS_TRY(reader.finish());
  STASIS_ASSIGN(const auto known, referrers(services.store));
  bool begun = false;
  bool done = false;
  const auto send = [&](const Json& event) -> Status {
    if (!begun) STASIS_TRY(exchange.begin(kLines));
    begun = true;
    return exchange.write(line_of(event));
  };
  Status ended = services.agent.verify_snapshots(request, [&](const pb::VerifyEvent& event) {
    done = done || event.has_done();
    return send(event_json(event, known));
  });
  if (ended && !done) ended = fail(Code::kUnavailable, "the end of the verification was not told");
  if (!ended && !begun) return fail(std::move(ended).error());
  if (!ended) ended = send(error_json(ended.error()));
  if (ended) ended = exchange.finish();
  HttpResponse response;
  response.sent = true;
  return response;
}

Result<HttpResponse> verify_one(Services& services, Exchange& exchange, const std::string& name) {
  pb::VerifySnapshotsRequest request;
  STASIS_ASSIGN(*request.add_snapshot_ids(), snapshot_id_of(services.store, name));
  return verify(services, exchange, request);
}

Result<HttpResponse> collect(Services& services, Exchange& exchange) {
  STASIS_ASSIGN(const Json body, read_json(exchange));
  JsonReader reader(body);
  pb::CollectStoreRequest request;
  request.set_dry_run(reader.flag("dry_run").value_or(false));
  request.set_grace_sec(reader.number("grace_sec", kMaxGraceSec).value_or(0));
  STASIS_TRY(reader.finish());
  STASIS_ASSIGN(const pb::CollectStoreReply reply, services.agent.collect_store(request));
  Json removed = Json::array();
  for (const auto& one : reply.removed()) removed.push_back({{"file", one.file()}, {"bytes", one.bytes()}});
  return json_response(200, {{"dry_run", request.dry_run()},
                             {"removed", std::move(removed)},
                             {"count", reply.count()},
                             {"bytes", reply.bytes()},
                             {"kept_young", reply.kept_young()}});
}

Json holder_json(const pb::StoreHolder& holder, const std::map<std::string, Referrers>& known) {
  Json json = reference_json(holder.id(), known);
  json.erase("snapshot_id");
  json.update({{"kind", holder.kind()},
               {"id", holder.id()},
               {"parent_id", or_null(holder.parent_id())},
               {"created_at", time_json(holder.created_unix_ms())},
               {"own_bytes", holder.own_bytes()},
               {"shared_bytes", holder.shared_bytes()},
               {"damage", or_null(holder.damage())}});
  return json;
}

Json scrub_json(const pb::ScrubState& scrub) {
  return {{"started_at", time_json(scrub.started_unix_ms())},
          {"finished_at", time_json(scrub.finished_unix_ms())},
          {"under_way", scrub.under_way()},
          {"checked_bytes", scrub.checked_bytes()},
          {"damaged", Json(std::vector<std::string>(scrub.damaged().begin(), scrub.damaged().end()))}};
}

Result<HttpResponse> usage(Services& services) {
  STASIS_ASSIGN(const pb::StoreUsage usage, services.agent.store_usage());
  STASIS_ASSIGN(const pb::ScrubState scrub, services.agent.scrub_state());
  STASIS_ASSIGN(const auto known, referrers(services.store));
  Json holders = Json::array();
  for (const pb::StoreHolder& holder : usage.holders()) holders.push_back(holder_json(holder, known));
  return json_response(200,
                       {{"holders", std::move(holders)},
                        {"layers", usage.layers()},
                        {"total_bytes", usage.total_bytes()},
                        {"reclaimable_bytes", usage.has_reclaimable_bytes() ? Json(usage.reclaimable_bytes()) : Json()},
                        {"scrub", scrub_json(scrub)}});
}

}  // namespace

void add_store_routes(Router& router, Services& services) {
  router.add("POST", "/v1/snapshots/{name}/verify", [&services](Exchange& exchange, const PathParameters& path) {
    return verify_one(services, exchange, path.at("name"));
  });
  router.add("POST", "/v1/store/verify", [&services](Exchange& exchange, const PathParameters&) {
    return verify(services, exchange, pb::VerifySnapshotsRequest());
  });
  router.add("POST", "/v1/store/gc",
             [&services](Exchange& exchange, const PathParameters&) { return collect(services, exchange); });
  router.add("GET", "/v1/store/usage", [&services](Exchange&, const PathParameters&) { return usage(services); });
}

}  // namespace stasis::server
