// HTTP as the handlers see it: nothing of sockets or of the library below. Names of headers are lower-case.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace stasis::server {

struct HttpRequest {
  std::string method;
  std::vector<std::string> segments;  // of the path, percent-decoded
  std::map<std::string, std::string> query;
  std::map<std::string, std::string> headers;
  bool upgrade = false;  // asks for a WebSocket

  // Empty if there is none.
  std::string header(const std::string& name) const;
};

struct HttpResponse {
  unsigned status = 200;
  std::string content_type = "application/json";
  std::vector<std::pair<std::string, std::string>> headers = {};
  std::string body = {};
  bool sent = false;  // the handler has answered through the exchange already
};

// Text messages to a client that is connected by WebSocket. Thread-safe.
class WebSocketSender {
 public:
  virtual ~WebSocketSender() = default;
  // Waits while too much is unsent. False if the client has gone.
  virtual bool send(std::string text) = 0;
};

// One request and its answer.
class Exchange {
 public:
  virtual ~Exchange() = default;
  virtual const HttpRequest& request() const = 0;

  // The whole body; kOutOfRange if it is longer than `limit`, and body_too_large() is true from then on.
  virtual Result<std::string> read_body(uint64_t limit) = 0;
  virtual bool body_too_large() const = 0;
  // The next piece of the body, empty at its end. Valid until the next call.
  virtual Result<std::string_view> read_some() = 0;

  // Begins an answer of unknown length with status 200; each write sends a piece. An answer that was begun and is not
  // finished is cut off, so that the client sees that it is not whole.
  virtual Status begin(std::string_view content_type) = 0;
  virtual Status write(std::string_view piece) = 0;
  virtual Status finish() = 0;

  // Runs `work` in a thread of its own until it returns; `on_gone` is called if the client closes the connection
  // before.
  virtual void while_connected(const std::function<void()>& work, const std::function<void()>& on_gone) = 0;

  // Accepts a WebSocket and waits for its first message.
  virtual Result<std::string> accept_websocket(uint64_t limit) = 0;
  // Runs `producer` in a thread of its own until it returns, then closes. If the client goes first, `on_gone` is called
  // and sends fail.
  virtual void run_websocket(const std::function<void(WebSocketSender&)>& producer,
                             const std::function<void()>& on_gone) = 0;
};

using PathParameters = std::map<std::string, std::string>;
using Handler = std::function<Result<HttpResponse>(Exchange&, const PathParameters&)>;

// The target of a request, split and decoded. kInvalidArgument if it is not well-formed.
Status parse_target(std::string_view target, HttpRequest& request);

unsigned http_status(Code code);
HttpResponse error_response(const Error& error, std::optional<unsigned> status = {});

}  // namespace stasis::server
