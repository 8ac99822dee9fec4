#include "server/testing/rest_client.h"

#include <gtest/gtest.h>

#include <boost/asio/connect.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/buffers_to_string.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/websocket.hpp>

#include "server/testing/openapi_check.h"

namespace stasis::server::testing {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using asio::ip::tcp;
using boost::system::error_code;

std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

tcp::endpoint endpoint(uint16_t port) { return {asio::ip::make_address("127.0.0.1"), port}; }

}  // namespace

RestClient::RestClient(const std::string& url, std::string token) : token_(std::move(token)) {
  port_ = static_cast<uint16_t>(std::stoi(url.substr(url.rfind(':') + 1)));
}

Answer RestClient::send_plain(const std::string& method, const std::string& target, const std::string& body,
                              const Headers& headers) const {
  asio::io_context context;
  tcp::socket socket(context);
  error_code error;
  socket.connect(endpoint(port_), error);
  if (error) return {};
  http::request<http::string_body> request;
  request.version(11);
  request.method_string(method);
  request.target(target);
  request.set(http::field::host, "127.0.0.1");
  request.set(http::field::connection, "close");
  for (const auto& [name, value] : headers) request.set(name, value);
  request.body() = body;
  request.prepare_payload();
  http::write(socket, request, error);  // an error here is no news: the answer may have come before the end
  beast::flat_buffer buffer;
  http::response_parser<http::string_body> parser;
  parser.body_limit(uint64_t{256} << 20);
  http::read(socket, buffer, parser, error);
  if (error) return {};
  Answer answer;
  answer.status = parser.get().result_int();
  for (const auto& field : parser.get())
    answer.headers[lower(std::string(field.name_string()))] = std::string(field.value());
  answer.text = parser.get().body();
  answer.body = Json::parse(answer.text, nullptr, false);
  if (answer.body.is_discarded()) answer.body = Json();
  return answer;
}

Answer RestClient::send(const std::string& method, const std::string& target, const std::string& body,
                        const Headers& headers) const {
  Headers all = headers;
  all["Authorization"] = "Bearer " + token_;
  Answer answer = send_plain(method, target, body, all);
  if (answer.status != 0) {
    EXPECT_EQ(description_error(method, target, answer), "") << answer.text;
  }
  return answer;
}

Answer RestClient::get(const std::string& target, const Headers& headers) const {
  return send("GET", target, "", headers);
}

Answer RestClient::post(const std::string& target, const Json& body, const Headers& headers) const {
  Headers all = headers;
  all["Content-Type"] = "application/json";
  return send("POST", target, body.is_null() ? "{}" : body.dump(), all);
}

Answer RestClient::remove(const std::string& target) const { return send("DELETE", target, ""); }

namespace {

std::string exchange(uint16_t port, const std::string& bytes, const std::function<void(tcp::socket&)>& then) {
  asio::io_context context;
  tcp::socket socket(context);
  error_code error;
  socket.connect(endpoint(port), error);
  asio::write(socket, asio::buffer(bytes), error);
  then(socket);
  std::string answer;
  asio::read(socket, asio::dynamic_buffer(answer), error);
  return answer;
}

}  // namespace

std::string RestClient::raw(const std::string& bytes) const {
  return exchange(port_, bytes, [](tcp::socket&) {});
}

std::string RestClient::raw_half_closed(const std::string& bytes, const std::function<void()>& before_close) const {
  return exchange(port_, bytes, [&](tcp::socket& socket) {
    before_close();
    error_code ignored;
    socket.shutdown(tcp::socket::shutdown_send, ignored);
  });
}

struct StreamClient::Connection {
  asio::io_context context;
  beast::websocket::stream<tcp::socket> stream{context};
  unsigned status = 0;
};

StreamClient::StreamClient(const RestClient& client, const std::string& target, const Json& first)
    : connection_(std::make_unique<Connection>()) {
  auto& stream = connection_->stream;
  error_code error;
  stream.next_layer().connect(endpoint(client.port()), error);
  stream.set_option(beast::websocket::stream_base::decorator([&](beast::websocket::request_type& request) {
    request.set(http::field::authorization, "Bearer " + client.token());
  }));
  beast::websocket::response_type response;
  stream.handshake(response, "127.0.0.1", target, error);
  connection_->status = response.result_int();
  if (error) return;
  stream.write(asio::buffer(first.dump()), error);
}

StreamClient::~StreamClient() = default;

Json StreamClient::next() {
  beast::flat_buffer buffer;
  error_code error;
  connection_->stream.read(buffer, error);
  if (error) return {};
  return Json::parse(beast::buffers_to_string(buffer.data()), nullptr, false);
}

unsigned StreamClient::status() const { return connection_->status; }

void StreamClient::drop() {
  error_code ignored;
  connection_->stream.next_layer().close(ignored);
}

}  // namespace stasis::server::testing
