#include "server.h"

#include <boost/asio/io_context.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <chrono>
#include <iostream>
#include <thread>

#include "misbehave.h"

namespace fake {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using asio::local::stream_protocol;
using boost::system::error_code;

constexpr uint64_t kMaxBody = 51'200;

std::string to_http(const Answer& answer) {
  std::string text =
      "HTTP/1.1 " + std::to_string(answer.status) + " \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n";
  if (!answer.body.empty()) {
    text += "Content-Type: application/json\r\nContent-Length: " + std::to_string(answer.body.size()) + "\r\n";
  }
  return text + "\r\n" + answer.body;
}

void send(stream_protocol::socket& socket, const std::string& text) {
  error_code error;
  asio::write(socket, asio::buffer(text), error);
}

// The ways to answer a change of state wrongly. True if the connection is to be closed.
bool answer_wrongly(stream_protocol::socket& socket) {
  while (misbehaves("silent")) std::this_thread::sleep_for(std::chrono::hours(1));
  if (misbehaves("close_connection")) return true;
  if (misbehaves("cut_answer")) {
    send(socket, "HTTP/1.1 400 \r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"fault_me");
    return true;
  }
  if (misbehaves("garbage")) {
    send(socket,
         "\x7f"
         "ELF is no HTTP\r\n\r\n");
    return true;
  }
  if (misbehaves("endless")) {
    send(socket, "HTTP/1.1 400 \r\nContent-Length: 100000000\r\n\r\n" + std::string(1 << 20, 'x'));
    return true;
  }
  if (misbehaves("http_error")) {
    send(socket, to_http({400, R"({"error":"Request payload is larger than the limit."})", false}));
    return true;
  }
  return false;
}

// False when the connection is over.
bool serve_request(stream_protocol::socket& socket, boost::beast::flat_buffer& buffer, Api& api) {
  http::request_parser<http::string_body> parser;
  parser.body_limit(kMaxBody);
  error_code error;
  http::read(socket, buffer, parser, error);
  if (error == http::error::body_limit) {
    send(socket,
         to_http({400, R"({"error":"Request payload is larger than the limit of 51200 allowed by server."})", false}));
    return false;
  }
  if (error) return false;
  const auto& message = parser.get();
  if (message.method() == http::verb::patch && answer_wrongly(socket)) return false;
  const Answer answer =
      api.handle({std::string(message.method_string()), std::string(message.target()), message.body()});
  if (misbehaves("slow_answers")) std::this_thread::sleep_for(std::chrono::milliseconds(100));
  send(socket, to_http(answer));
  if (answer.end_process) std::_Exit(answer.status == 204 ? 0 : 1);
  return true;
}

}  // namespace

int serve(const stasis::Path& path) {
  try {
    asio::io_context context;
    stream_protocol::acceptor acceptor(context, stream_protocol::endpoint(path.string()));
    Api api;
    for (;;) {
      stream_protocol::socket socket = acceptor.accept();
      boost::beast::flat_buffer buffer;
      while (serve_request(socket, buffer, api)) {
      }
    }
  } catch (const std::exception& error) {
    std::cerr << "Failed to open the API socket at: " << path.string() << ": " << error.what() << std::endl;
    return 1;
  }
}

}  // namespace fake
