// A small HTTP client for tests that holds every answer against openapi.yaml: the route, its status and the shape of
// the body must be described there, else the test fails.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "server/records.h"

namespace stasis::server::testing {

struct Answer {
  unsigned status = 0;  // 0: the connection broke
  std::map<std::string, std::string> headers;
  std::string text;
  Json body;  // null if the text is not JSON
  std::string error_code() const { return body.is_object() && body.contains("error") ? body["error"]["code"] : ""; }
};

using Headers = std::map<std::string, std::string>;

class RestClient {
 public:
  RestClient(const std::string& url, std::string token);

  Answer get(const std::string& target, const Headers& headers = {}) const;
  // A null body is sent as an empty object.
  Answer post(const std::string& target, const Json& body = Json::object(), const Headers& headers = {}) const;
  Answer remove(const std::string& target) const;
  // Any method and body as they are.
  Answer send(const std::string& method, const std::string& target, const std::string& body,
              const Headers& headers = {}) const;
  // Without the token, without a check against the description.
  Answer send_plain(const std::string& method, const std::string& target, const std::string& body,
                    const Headers& headers) const;
  // These bytes on a connection of their own; everything that comes back until the other side closes.
  std::string raw(const std::string& bytes) const;
  // The same, but after `before_close` this side says that nothing more will come.
  std::string raw_half_closed(
      const std::string& bytes, const std::function<void()>& before_close = [] {}) const;

  uint16_t port() const { return port_; }
  const std::string& token() const { return token_; }

 private:
  std::string token_;
  uint16_t port_ = 0;
};

// A WebSocket client: sends `first`, then hands out the messages.
class StreamClient {
 public:
  StreamClient(const RestClient& client, const std::string& target, const Json& first);
  ~StreamClient();
  // The next message; null when the stream is closed.
  Json next();
  // The status of a refused upgrade, 101 if it was accepted.
  unsigned status() const;
  // Drops the connection without a word.
  void drop();

 private:
  struct Connection;
  std::unique_ptr<Connection> connection_;
};

}  // namespace stasis::server::testing
