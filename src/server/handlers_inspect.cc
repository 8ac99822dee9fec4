// What snapshots consist of, where they come from, and how they differ.
#include "server/handlers.h"
#include "server/json_codec.h"
#include "server/snapshot_names.h"

namespace stasis::server {
namespace {

constexpr uint32_t kDefaultCells = 1024;
constexpr uint32_t kMaxCells = 65'536;

Json ancestor_json(const pb::SnapshotInfo& info, const std::map<std::string, Referrers>& known) {
  Json json = reference_json(info.snapshot_id(), known);
  json.update({{"exists", !info.kind().empty()},
               {"kind", info.kind().empty() ? Json() : Json(info.kind())},
               {"created_at", time_json(info.created_unix_ms())},
               {"stored_bytes", info.stored_bytes()}});
  return json;
}

Json space_json(const pb::SpaceDetail& space) {
  Json layers = Json::array();
  for (const pb::LayerUse& layer : space.layers()) {
    layers.push_back({{"layer_id", layer.layer_id()},
                      {"generation", layer.generation()},
                      {"mapped_bytes", layer.mapped_bytes()},
                      {"extents", layer.extents()},
                      {"stored_bytes", layer.stored_bytes()},
                      {"form", layer.form()},
                      {"shared", layer.shared()},
                      {"verified", layer.verified()}});
  }
  return {{"name", space.name()},
          {"size", space.size()},
          {"generation", space.generation()},
          {"extents", space.extents()},
          {"data_bytes", space.data_bytes()},
          {"zero_bytes", space.zero_bytes()},
          {"own_bytes", space.own_bytes()},
          {"shared_bytes", space.shared_bytes()},
          {"fragmentation", space.fragmentation()},
          {"layers", std::move(layers)},
          {"cells", Json(std::vector<uint32_t>(space.cells().begin(), space.cells().end()))}};
}

Result<uint32_t> cells_of(const HttpRequest& request) {
  const auto found = request.query.find("cells");
  if (found == request.query.end()) return kDefaultCells;
  uint32_t cells = 0;
  if (parse_number(found->second, cells) && cells > 0 && cells <= kMaxCells) return cells;
  return fail(Code::kInvalidArgument, "cells is no number from 1 to " + std::to_string(kMaxCells));
}

Result<pb::SnapshotDetail> detail(Services& services, const std::string& name, uint32_t cells) {
  pb::InspectSnapshotRequest request;
  STASIS_ASSIGN(*request.mutable_snapshot_id(), snapshot_id_of(services.store, name));
  request.set_cells(cells);
  return services.agent.inspect_snapshot(request);
}

Result<HttpResponse> stats(Services& services, const HttpRequest& request, const std::string& name) {
  STASIS_TRY(check_query(request, {"cells"}));
  STASIS_ASSIGN(const uint32_t cells, cells_of(request));
  STASIS_ASSIGN(const pb::SnapshotDetail reply, detail(services, name, cells));
  STASIS_ASSIGN(const auto known, referrers(services.store));
  Json spaces = Json::array();
  for (const pb::SpaceDetail& space : reply.spaces()) spaces.push_back(space_json(space));
  Json json = ancestor_json(reply.info(), known);
  json.erase("exists");
  json.update({{"vcpus", reply.info().vcpus()},
               {"memory_mb", reply.info().memory_mb()},
               {"vmm", reply.vmm()},
               {"kernel", reply.kernel()},
               {"part_bytes", reply.part_bytes()},
               {"own_bytes", reply.own_bytes()},
               {"shared_bytes", reply.shared_bytes()},
               {"spaces", std::move(spaces)}});
  return json_response(200, json);
}

Result<HttpResponse> lineage(Services& services, const std::string& name) {
  STASIS_ASSIGN(const pb::SnapshotDetail reply, detail(services, name, 1));
  STASIS_ASSIGN(const auto known, referrers(services.store));
  Json line = Json::array({ancestor_json(reply.info(), known)});
  for (const pb::SnapshotInfo& parent : reply.parents()) line.push_back(ancestor_json(parent, known));
  return json_response(200, {{"lineage", std::move(line)}});
}

Json change_json(const pb::FileChange& change) {
  const auto or_null = [](std::string text) { return text.empty() ? Json() : Json(std::move(text)); };
  Json what = Json::array();
  if (change.content()) what.push_back("content");
  if (change.mode()) what.push_back("mode");
  if (change.owner()) what.push_back("owner");
  if (change.attributes()) what.push_back("attributes");
  return {{"change", change.change()},
          {"path", path_text(change.path())},
          {"old_path", or_null(path_text(change.old_path()))},
          {"type_before", or_null(change.type_before())},
          {"type_now", or_null(change.type_now())},
          {"size_before", change.size_before()},
          {"size_now", change.size_now()},
          {"what", std::move(what)}};
}

Json files_json(const pb::FileChanges& files) {
  if (!files.note().empty()) return {{"note", files.note()}, {"counts", Json()}, {"changes", Json::array()}};
  Json changes = Json::array();
  for (const pb::FileChange& change : files.changes()) changes.push_back(change_json(change));
  return {{"note", Json()},
          {"counts",
           {{"added", files.added()},
            {"removed", files.removed()},
            {"modified", files.modified()},
            {"metadata", files.metadata()},
            {"type", files.type()},
            {"renamed", files.renamed()}}},
          {"changes", std::move(changes)}};
}

Json diff_json(const pb::SpaceDiff& space) {
  Json changed = Json::array();
  for (const pb::ByteRange& range : space.changed()) {
    changed.push_back({{"offset", range.offset()}, {"length", range.length()}});
  }
  return {{"name", space.name()},
          {"from_size", space.from_size()},
          {"to_size", space.to_size()},
          {"same_source_bytes", space.same_source_bytes()},
          {"compared_bytes", space.compared_bytes()},
          {"changed_bytes", space.changed_bytes()},
          {"became_zero_bytes", space.became_zero_bytes()},
          {"became_data_bytes", space.became_data_bytes()},
          {"runs", space.runs()},
          {"changed", std::move(changed)},
          {"files", space.has_files() ? files_json(space.files()) : Json()}};
}

Result<HttpResponse> diff(Services& services, Exchange& exchange, const std::string& name) {
  STASIS_TRY(check_query(exchange.request(), {"to"}));
  const auto to = exchange.request().query.find("to");
  if (to == exchange.request().query.end()) {
    return fail(Code::kInvalidArgument, "the query does not say what to compare with", "add ?to=NAME");
  }
  pb::DiffSnapshotsRequest request;
  STASIS_ASSIGN(*request.mutable_from_id(), snapshot_id_of(services.store, name));
  STASIS_ASSIGN(*request.mutable_to_id(), snapshot_id_of(services.store, to->second));
  STASIS_ASSIGN(const auto known, referrers(services.store));
  Cancellation cancellation;
  Result<pb::SnapshotDiff> reply;
  exchange.while_connected([&] { reply = services.agent.diff_snapshots(request, cancellation); },
                           [&] { cancellation.cancel(); });
  if (!reply) return fail(std::move(reply).error());
  Json spaces = Json::array();
  for (const pb::SpaceDiff& space : reply->spaces()) spaces.push_back(diff_json(space));
  return json_response(200, {{"from", reference_json(request.from_id(), known)},
                             {"to", reference_json(request.to_id(), known)},
                             {"spaces", std::move(spaces)}});
}

}  // namespace

void add_inspect_routes(Router& router, Services& services) {
  router.add("GET", "/v1/snapshots/{name}/stats", [&services](Exchange& exchange, const PathParameters& path) {
    return stats(services, exchange.request(), path.at("name"));
  });
  router.add("GET", "/v1/snapshots/{name}/lineage",
             [&services](Exchange&, const PathParameters& path) { return lineage(services, path.at("name")); });
  router.add("GET", "/v1/snapshots/{name}/diff", [&services](Exchange& exchange, const PathParameters& path) {
    return diff(services, exchange, path.at("name"));
  });
}

}  // namespace stasis::server
