// Finds the handler of a request by method and path, checks the token, and turns errors into answers. A pattern is a
// path whose {segments} match anything, "/v1/sandboxes/{id}/pause".
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "server/http.h"

namespace stasis::server {

class Router {
 public:
  // Called after each request: method, pattern ("none" if there is no such route), status, seconds.
  using Observer = std::function<void(const std::string&, const std::string&, unsigned, double)>;

  Router(std::string token, Observer observer) : token_(std::move(token)), observer_(std::move(observer)) {}

  void add(const std::string& method, const std::string& pattern, Handler handler);
  // Answers every request, whatever happens in its handler.
  HttpResponse handle(Exchange& exchange) const;

 private:
  struct Route {
    std::string method;
    std::string pattern;
    std::vector<std::string> segments;
    Handler handler;
  };

  HttpResponse dispatch(Exchange& exchange, std::string& pattern) const;
  bool authorized(const HttpRequest& request) const;

  std::string token_;
  Observer observer_;
  std::vector<Route> routes_;
};

}  // namespace stasis::server
