// The server's side of one WebSocket that sends texts and listens only for the other side's end. Private to the
// session.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/buffer_body.hpp>
#include <boost/beast/http/message.hpp>
#include <chrono>
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

// A ping goes out every `ping`, so that nothing in between takes a silent stream for a dead one. It need not be
// answered: a client whose user looks at the first page of a long output reads nothing for as long as that takes. One
// that has vanished is found by TCP.
std::unique_ptr<WebSocket> make_websocket(boost::asio::io_context& context, boost::beast::tcp_stream& stream,
                                          std::chrono::milliseconds ping = std::chrono::seconds(30));

}  // namespace stasis::server
