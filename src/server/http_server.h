// Listens and serves HTTP/1.1, each connection in a thread of its own, at most `max_connections` at once (more are
// answered with 503 and closed). Every wait for the other side has a limit; handlers may take as long as they need.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "server/http.h"

namespace stasis::server {

struct HttpServerOptions {
  std::string address = "127.0.0.1";
  uint16_t port = 0;  // 0: a free one
  size_t max_connections = 128;
};

class HttpServer {
 public:
  using Handle = std::function<HttpResponse(Exchange&)>;

  static Result<std::unique_ptr<HttpServer>> start(const HttpServerOptions& options, Handle handle);
  virtual ~HttpServer() = default;  // stops

  virtual uint16_t port() const = 0;
  // Takes no new connection, closes idle ones and streams, and waits for requests under way. False if some are left.
  virtual bool drain(std::chrono::milliseconds patience) = 0;
  // Closes every connection and waits until every handler has returned.
  virtual void stop() = 0;
};

}  // namespace stasis::server
