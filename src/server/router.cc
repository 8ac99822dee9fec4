#include "server/router.h"

#include <chrono>
#include <exception>
#include <set>

#include "base/log.h"

namespace stasis::server {
namespace {

bool matches(const std::vector<std::string>& pattern, const std::vector<std::string>& path,
             PathParameters& parameters) {
  if (pattern.size() != path.size()) return false;
  parameters.clear();
  for (size_t i = 0; i < path.size(); ++i) {
    if (pattern[i].starts_with('{')) {
      parameters[pattern[i].substr(1, pattern[i].size() - 2)] = path[i];
    } else if (pattern[i] != path[i]) {
      return false;
    }
  }
  return true;
}

// Takes as long for every wrong token of the right length.
bool same(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  unsigned difference = 0;
  for (size_t i = 0; i < a.size(); ++i) difference |= static_cast<unsigned>(a[i]) ^ static_cast<unsigned>(b[i]);
  return difference == 0;
}

HttpResponse wrong_method(const HttpRequest& request, const std::set<std::string>& allowed) {
  std::string list;
  for (const std::string& method : allowed) list += (list.empty() ? "" : ", ") + method;
  HttpResponse response =
      error_response({Code::kUnimplemented, "this path does not take " + request.method, "it takes " + list}, 405);
  response.headers.emplace_back("Allow", list);
  return response;
}

HttpResponse answer(const Handler& handler, Exchange& exchange, const PathParameters& parameters) {
  try {
    Result<HttpResponse> response = handler(exchange, parameters);
    if (response) return std::move(*response);
    return error_response(response.error(), exchange.body_too_large() ? std::optional<unsigned>(413) : std::nullopt);
  } catch (const std::exception& error) {
    spdlog::error("a request failed: {}", error.what());
    return error_response({Code::kInternal, std::string("the request failed: ") + error.what(), ""});
  }
}

}  // namespace

void Router::add(const std::string& method, const std::string& pattern, Handler handler) {
  HttpRequest parsed;
  (void)parse_target(pattern, parsed);
  routes_.push_back({method, pattern, parsed.segments, std::move(handler)});
}

bool Router::authorized(const HttpRequest& request) const {
  if (request.segments.empty() || request.segments.front() != "v1") return true;
  const std::string authorization = request.header("authorization");
  const std::string_view prefix = "Bearer ";
  if (authorization.starts_with(prefix)) return same(std::string_view(authorization).substr(prefix.size()), token_);
  return same(request.header("x-api-key"), token_);
}

HttpResponse Router::dispatch(Exchange& exchange, std::string& pattern) const {
  const HttpRequest& request = exchange.request();
  if (!authorized(request)) {
    return error_response({Code::kUnauthenticated, "the request carries no valid token",
                           "send 'Authorization: Bearer TOKEN' with the token in the server's STATE/api-token"});
  }
  std::set<std::string> allowed;
  PathParameters parameters;
  for (const Route& route : routes_) {
    if (!matches(route.segments, request.segments, parameters)) continue;
    pattern = route.pattern;
    if (route.method == request.method) return answer(route.handler, exchange, parameters);
    allowed.insert(route.method);
  }
  if (!allowed.empty()) return wrong_method(request, allowed);
  return error_response(
      {Code::kNotFound, "there is nothing at this path", "GET /openapi.yaml describes what there is"});
}

HttpResponse Router::handle(Exchange& exchange) const {
  const auto start = std::chrono::steady_clock::now();
  std::string pattern = "none";
  HttpResponse response = dispatch(exchange, pattern);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  observer_(exchange.request().method, pattern, response.status, took.count());
  return response;
}

}  // namespace stasis::server
