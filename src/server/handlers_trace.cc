// GET /v1/sandboxes/{id}/trace: how the memory of a running sandbox has come back.
#include "server/handlers.h"
#include "server/json_codec.h"

namespace stasis::server {
namespace {

Json faults_json(const pb::PagerMetrics& metrics) {
  Json rows = Json::array();
  for (const pb::FaultCount& row : metrics.faults()) {
    rows.push_back({{"kind", row.kind()}, {"cause", row.cause()}, {"outcome", row.outcome()}, {"count", row.count()}});
  }
  return rows;
}

Json pages_json(const pb::PagerMetrics& metrics) {
  Json rows = Json::array();
  for (const pb::PagesCame& row : metrics.pages()) {
    rows.push_back({{"how", row.how()}, {"zeros", row.zeros()}, {"pages", row.pages()}});
  }
  return rows;
}

Json sources_json(const pb::PagerMetrics& metrics) {
  Json rows = Json::array();
  for (const pb::SourceBytes& row : metrics.sources()) {
    rows.push_back({{"layer_id", row.layer() == "zeros" ? Json() : Json(row.layer())}, {"bytes", row.bytes()}});
  }
  return rows;
}

Json events_json(const pb::RestoreTrace& trace) {
  Json rows = Json::array();
  for (const pb::ArrivalEvent& row : trace.events()) {
    rows.push_back({{"when_us", row.when_us()},
                    {"offset", row.offset()},
                    {"length", row.length()},
                    {"how", row.how()},
                    {"zeros", row.zeros()}});
  }
  return rows;
}

Json load_json(const pb::RestoreTrace& trace) {
  return {{"state", trace.load()},
          {"complete", trace.load() == "complete"},
          {"left_bytes", trace.metrics().load_left_bytes()},
          {"error", trace.load_error().empty() ? Json() : Json(trace.load_error())}};
}

Result<HttpResponse> trace(Services& services, const std::string& id) {
  STASIS_TRY(services.operations.running(id));
  pb::GetRestoreTraceRequest request;
  request.set_sandbox_id(id);
  STASIS_ASSIGN(const pb::RestoreTrace reply, services.agent.restore_trace(request));
  const pb::PagerMetrics& metrics = reply.metrics();
  const Json service(std::vector<uint64_t>(metrics.service_buckets().begin(), metrics.service_buckets().end()));
  return json_response(200, {{"sandbox_id", id},
                             {"method", reply.method().empty() ? Json() : Json(reply.method())},
                             {"reason", reply.reason()},
                             {"spare", reply.spare()},
                             {"total_pages", reply.total_pages()},
                             {"faults", faults_json(metrics)},
                             {"fault_times", service},
                             {"fault_total_us", static_cast<double>(metrics.service_ns()) / 1000},
                             {"pages", pages_json(metrics)},
                             {"sources", sources_json(metrics)},
                             {"parked", metrics.parked()},
                             {"fetching_frames", metrics.fetching_frames()},
                             {"prefetch_left_bytes", metrics.prefetch_left_bytes()},
                             {"largest_batch", metrics.largest_batch()},
                             {"load", reply.load().empty() ? Json() : load_json(reply)},
                             {"events", events_json(reply)},
                             {"left_out", reply.left_out()}});
}

}  // namespace

void add_trace_routes(Router& router, Services& services) {
  router.add("GET", "/v1/sandboxes/{id}/trace",
             [&services](Exchange&, const PathParameters& path) { return trace(services, path.at("id")); });
}

}  // namespace stasis::server
