// The server's side of a WebSocket against a client of this test's own, on a connection without an HTTP server.
#include "server/websocket.h"

#include <gtest/gtest.h>

#include <atomic>
#include <boost/asio/connect.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/buffers_to_string.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/websocket.hpp>
#include <semaphore>
#include <thread>

namespace stasis::server {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace websocket = beast::websocket;
using tcp = asio::ip::tcp;
using boost::system::error_code;
using std::chrono::milliseconds;

class WebSocketTest : public ::testing::Test {
 protected:
  static constexpr milliseconds kPing{20};

  WebSocketTest() : acceptor_(context_, {asio::ip::address_v4::loopback(), 0}), client_(context_) {}
  void TearDown() override {
    error_code ignored;
    beast::get_lowest_layer(client_).close(ignored);
    if (server_.joinable()) server_.join();
  }

  // Upgrades, and has said its first message, when this returns.
  void serve(std::function<void(WebSocketSender&)> producer) {
    server_ = std::thread([this, producer = std::move(producer)] {
      asio::io_context context;
      beast::tcp_stream stream(acceptor_.accept(context));
      beast::flat_buffer buffer;
      beast::http::request_parser<beast::http::buffer_body> parser;
      error_code error;
      beast::http::read_header(stream, buffer, parser, error);
      const auto socket = make_websocket(context, stream, kPing);
      if (socket->accept(parser.get(), 1 << 20)) socket->run(producer, [] {});
    });
    beast::get_lowest_layer(client_).connect(acceptor_.local_endpoint());
    client_.handshake("127.0.0.1", "/");
    client_.write(asio::buffer("first", 5));
  }
  // Empty once the other side has closed.
  std::string next() {
    beast::flat_buffer buffer;
    error_code error;
    client_.read(buffer, error);
    return error ? "" : beast::buffers_to_string(buffer.data());
  }

  asio::io_context context_;
  tcp::acceptor acceptor_;
  websocket::stream<tcp::socket> client_;
  std::thread server_;
};

// Its user looks at the first page of it (`| less`).
TEST_F(WebSocketTest, AClientThatDoesNotReadForLongStillGetsEverything) {
  constexpr size_t kMessages = 48;
  const std::string large(size_t{256} << 10, 'x');
  serve([&](WebSocketSender& sender) {
    for (size_t i = 0; i < kMessages; ++i) (void)sender.send(large);
    (void)sender.send("the end");
  });
  std::this_thread::sleep_for(kPing * 20);  // the silence itself
  size_t messages = 0;
  while (next() == large) ++messages;
  EXPECT_EQ(messages, kMessages);
}

// Else what stands between the two may take the connection for dead.
TEST_F(WebSocketTest, ASilentStreamIsPinged) {
  std::binary_semaphore enough(0);
  int pings = 0;
  client_.control_callback([&](websocket::frame_type type, beast::string_view) {
    if (type == websocket::frame_type::ping && ++pings == 3) enough.release();
  });
  serve([&](WebSocketSender& sender) {
    enough.acquire();
    (void)sender.send("the end");
  });
  EXPECT_EQ(next(), "the end");
  EXPECT_EQ(next(), "");
}

}  // namespace
}  // namespace stasis::server
