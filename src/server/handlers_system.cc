// Health, metrics, the description of the API, and what the other handlers share.
#include <string>

#include "server/handlers.h"
#include "server/json_codec.h"
#include "server/openapi.h"
#include "server/pager_metrics.h"
#include "server/scrub_metrics.h"

namespace stasis::server {

Result<Json> read_json(Exchange& exchange, uint64_t limit) {
  STASIS_ASSIGN(const std::string body, exchange.read_body(limit));
  return parse_object(body);
}

Status check_query(const HttpRequest& request, std::initializer_list<std::string_view> allowed) {
  for (const auto& [name, value] : request.query) {
    bool known = false;
    for (const std::string_view one : allowed) {
      known = known || (one.ends_with('.') ? name.starts_with(one) && name.size() > one.size() : name == one);
    }
    if (!known) {
      return fail(Code::kInvalidArgument, "unknown query parameter '" + name + "'", "GET /openapi.yaml names them");
    }
  }
  return {};
}

void add_system_routes(Router& router, Services& services) {
  router.add("GET", "/healthz", [](Exchange&, const PathParameters&) -> Result<HttpResponse> {
    return json_response(200, {{"status", "ok"}});
  });
  router.add("GET", "/metrics", [&services](Exchange&, const PathParameters&) -> Result<HttpResponse> {
    STASIS_ASSIGN(const auto counts, services.store.read([](Tables& tables) { return tables.sandboxes.count(); }));
    HttpResponse response;
    response.content_type = "text/plain; version=0.0.4";
    response.body = services.metrics.text(counts);
    const auto pager = services.agent.pager_metrics();
    response.body += pager_metrics_text(pager ? &*pager : nullptr);
    if (pager) {
      if (const auto scrub = services.agent.scrub_state()) response.body += scrub_metrics_text(*scrub);
    }
    return response;
  });
  router.add("GET", "/openapi.yaml", [](Exchange&, const PathParameters&) -> Result<HttpResponse> {
    HttpResponse response;
    response.content_type = "application/yaml";
    response.body = kOpenApi;
    return response;
  });
}

}  // namespace stasis::server
