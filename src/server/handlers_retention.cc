// /v1/retention: how many snapshots are kept, and for how long.
#include "server/handlers.h"
#include "server/json_codec.h"

namespace stasis::server {
namespace {

constexpr uint32_t kMaxKeep = 1'000'000;
constexpr uint32_t kMaxAgeSec = 100 * 366 * 24 * 3600U;

Json policy_json(const RetentionPolicy& policy) {
  const auto limit = [](uint32_t value) { return value == 0 ? Json() : Json(value); };
  return {{"scope", policy.scope},
          {"target", policy.target},
          {"keep_last", limit(policy.keep_last)},
          {"max_age_sec", limit(policy.max_age_sec)}};
}

Status check_scope(const std::string& scope) {
  if (scope == "sandbox" || scope == "template") return {};
  return fail(Code::kInvalidArgument, "a policy is of a 'sandbox' or of a 'template', not of a '" + scope + "'");
}

// A policy of what does not exist would never do anything, and nobody would notice.
Status check_target(Tables& tables, const RetentionPolicy& policy) {
  if (policy.scope == "sandbox") {
    STASIS_TRY(tables.sandboxes.get(policy.target));
    return {};
  }
  STASIS_ASSIGN(const auto known, tables.templates.find(policy.target));
  if (known) return {};
  return fail(Code::kNotFound, "there is no template '" + policy.target + "'",
              "GET /v1/snapshots (stasis snapshot ls) lists those there are");
}

Result<HttpResponse> put(Services& services, Exchange& exchange, const PathParameters& path) {
  STASIS_ASSIGN(const Json body, read_json(exchange));
  JsonReader reader(body);
  RetentionPolicy policy{path.at("scope"), path.at("target")};
  policy.keep_last = reader.number("keep_last", kMaxKeep).value_or(0);
  policy.max_age_sec = reader.number("max_age_sec", kMaxAgeSec).value_or(0);
  STASIS_TRY(reader.finish());
  STASIS_TRY(check_scope(policy.scope));
  if (policy.keep_last == 0 && policy.max_age_sec == 0) {
    return fail(Code::kInvalidArgument, "the policy has no limit",
                "give keep_last, max_age_sec or both, at least 1; DELETE removes a policy");
  }
  const Status kept = services.store.write([&](Tables& tables) -> Status {
    STASIS_TRY(check_target(tables, policy));
    return tables.retention.put(policy);
  });
  STASIS_TRY(kept);
  services.wake_reconciler();
  return json_response(200, policy_json(policy));
}

Result<HttpResponse> list(Services& services) {
  STASIS_ASSIGN(const auto policies, services.store.read([](Tables& tables) { return tables.retention.list(); }));
  Json json = Json::array();
  for (const RetentionPolicy& policy : policies) json.push_back(policy_json(policy));
  return json_response(200, {{"policies", std::move(json)}});
}

Result<HttpResponse> remove(Services& services, const PathParameters& path) {
  STASIS_TRY(check_scope(path.at("scope")));
  STASIS_ASSIGN(const bool removed, services.store.write([&](Tables& tables) {
    return tables.retention.remove(path.at("scope"), path.at("target"));
  }));
  if (removed) return HttpResponse{204};
  return fail(Code::kNotFound, "there is no retention policy of " + path.at("scope") + " '" + path.at("target") + "'",
              "GET /v1/retention (stasis snapshot retention ls) lists those there are");
}

}  // namespace

void add_retention_routes(Router& router, Services& services) {
  router.add("GET", "/v1/retention", [&services](Exchange&, const PathParameters&) { return list(services); });
  router.add("PUT", "/v1/retention/{scope}/{target}",
             [&services](Exchange& exchange, const PathParameters& path) { return put(services, exchange, path); });
  router.add("DELETE", "/v1/retention/{scope}/{target}",
             [&services](Exchange&, const PathParameters& path) { return remove(services, path); });
}

}  // namespace stasis::server
