#include "cli/testing/fake_server.h"

#include <boost/beast/core/buffers_to_string.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/websocket.hpp>

namespace stasis::cli {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
namespace websocket = beast::websocket;
using asio::ip::tcp;
using boost::system::error_code;

std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

void send_reply(tcp::socket& socket, const FakeReply& reply) {
  http::response<http::string_body> response;
  response.version(11);
  response.result(reply.status);
  response.set(http::field::connection, "close");
  response.body() = reply.body;
  response.prepare_payload();
  if (reply.cut_short) response.content_length(reply.body.size() + 1000);
  error_code error;
  http::response_serializer<http::string_body> serializer(response);
  http::write(socket, serializer, error);
  socket.shutdown(tcp::socket::shutdown_send, error);
}

}  // namespace

FakeServer::FakeServer(Handler handler)
    : handler_(std::move(handler)),
      acceptor_(context_, {asio::ip::make_address("127.0.0.1"), 0}),
      thread_([this] { serve(); }) {}

FakeServer::~FakeServer() {
  stopping_ = true;
  error_code error;
  tcp::socket wake(context_);
  wake.connect(acceptor_.local_endpoint(), error);
  thread_.join();
}

std::string FakeServer::url() const { return "http://127.0.0.1:" + std::to_string(acceptor_.local_endpoint().port()); }

std::vector<FakeRequest> FakeServer::requests() const {
  const std::lock_guard lock(mutex_);
  return requests_;
}

void FakeServer::serve() {
  while (true) {
    error_code error;
    tcp::socket socket = acceptor_.accept(error);
    if (error || stopping_) return;
    serve_one(std::move(socket));
  }
}

FakeReply FakeServer::answer(FakeRequest request) {
  FakeReply reply = handler_(request);
  const std::lock_guard lock(mutex_);
  requests_.push_back(std::move(request));
  return reply;
}

void FakeServer::serve_one(tcp::socket socket) {
  beast::flat_buffer buffer;
  http::request_parser<http::string_body> parser;
  parser.body_limit(boost::none);
  error_code error;
  http::read(socket, buffer, parser, error);
  if (error) return;
  const auto& message = parser.get();
  FakeRequest request{std::string(message.method_string()), std::string(message.target()), message.body(), {}};
  for (const auto& field : message)
    request.headers[lower(std::string(field.name_string()))] = std::string(field.value());
  if (!websocket::is_upgrade(message)) {
    send_reply(socket, answer(std::move(request)));
    return;
  }
  request.method = "WEBSOCKET";
  websocket::stream<tcp::socket&> stream(socket);
  stream.accept(message, error);
  beast::flat_buffer first;
  stream.read(first, error);
  request.body = beast::buffers_to_string(first.data());
  const FakeReply reply = answer(std::move(request));
  for (const std::string& text : reply.messages) stream.write(asio::buffer(text), error);
  if (!reply.cut_short) stream.close(websocket::close_code::normal, error);
}

}  // namespace stasis::cli
