// The server's side of one WebSocket that sends texts and listens only for the other side's end. Private to the
// session.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/buffer_body.hpp>
#include <boost/beast/http/message.hpp>
#include <functional>
#include <memory>
#include <string>

#include "server/http.h"

namespace stasis::server {

class WebSocket {
 public:
  using Request = boost::beast::http::request<boost::beast::http::buffer_body>;

  virtual ~WebSocket() = default;
  // Answers the request and waits for the first message.
  virtual Result<std::string> accept(const Request& request, uint64_t limit) = 0;
  virtual void run(const std::function<void(WebSocketSender&)>& producer, const std::function<void()>& on_gone) = 0;
};

std::unique_ptr<WebSocket> make_websocket(boost::asio::io_context& context, boost::beast::tcp_stream& stream);

}  // namespace stasis::server
