// What the HTTP and the WebSocket side of the client share: connecting, naming errors, reading error answers. Private
// to them.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"
#include "cli/settings.h"

namespace stasis::cli {

struct Connection {
  std::unique_ptr<boost::asio::io_context> context;  // must outlive the stream
  std::unique_ptr<boost::beast::tcp_stream> stream;
};

Result<Connection> connect(const Endpoint& endpoint);
// The Host header.
std::string authority(const Endpoint& endpoint);
// An error of a connection that stood.
Error broken_connection(const boost::system::error_code& error, std::string_view doing);
// The error that an answer with this status and body carries.
Error answered_error(unsigned status, std::string_view body);

}  // namespace stasis::cli
