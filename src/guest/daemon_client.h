// A client of the daemon for its tests: plain requests, RPCs, and streams that are read event by event. Blocking, with
// Boost.Beast on the other side of the wire from the daemon's own reading of it.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "guest/connect_codec.h"

namespace stasis::guest {

namespace http = boost::beast::http;

using HeaderMap = std::map<std::string, std::string>;

struct Answer {
  int status = 0;
  std::string body;
  HeaderMap headers;
  nlohmann::json json() const { return nlohmann::json::parse(body, nullptr, false); }
};

class DaemonClient {
 public:
  explicit DaemonClient(uint16_t port) : port_(port) {}
  HeaderMap always;  // sent with every request

  Answer request(http::verb method, const std::string& target, const std::string& body = "",
                 const HeaderMap& headers = {}) {
    boost::asio::ip::tcp::socket socket(context_);
    connect(socket);
    auto message = make(method, target, body, headers);
    http::write(socket, message);
    return read_answer(socket);
  }

  Answer rpc(const std::string& method, const nlohmann::json& message, HeaderMap headers = {}) {
    headers.emplace("Content-Type", "application/json");
    return request(http::verb::post, "/" + method, message.dump(), headers);
  }

  // A server stream, open until the object goes.
  class Stream {
   public:
    // The next message, the last being the end-of-stream one; nothing after it or when the connection ended.
    std::optional<nlohmann::json> next() {
      while (!ended_) {
        std::string& body = parser_.get().body();
        if (body.size() - at_ >= 5) {
          size_t length = 0;
          for (size_t i = 1; i < 5; ++i) length = length << 8 | static_cast<uint8_t>(body[at_ + i]);
          if (body.size() - at_ >= 5 + length) {
            auto message = nlohmann::json::parse(body.substr(at_ + 5, length));
            ended_ = (body[at_] & kEndStreamFlag) != 0;
            at_ += 5 + length;
            return message;
          }
        }
        if (parser_.is_done()) return std::nullopt;
        boost::system::error_code error;
        http::read_some(socket_, buffer_, parser_, error);
        if (error) return std::nullopt;
      }
      return std::nullopt;
    }
    // The next one that is an event; fails the test's expectations by returning null otherwise.
    nlohmann::json event() {
      auto message = next();
      return message && message->contains("event") ? (*message)["event"] : nlohmann::json();
    }
    int status() const { return static_cast<int>(parser_.get().result_int()); }
    void abort() {
      socket_.set_option(boost::asio::socket_base::linger(true, 0));
      socket_.close();
    }

   private:
    friend class DaemonClient;
    explicit Stream(boost::asio::io_context& context) : socket_(context) { parser_.body_limit(boost::none); }
    boost::asio::ip::tcp::socket socket_;
    boost::beast::flat_buffer buffer_;
    http::response_parser<http::string_body> parser_;
    size_t at_ = 0;
    bool ended_ = false;
  };

  std::unique_ptr<Stream> stream(const std::string& method, const std::string& body, HeaderMap headers = {}) {
    std::unique_ptr<Stream> out(new Stream(context_));
    connect(out->socket_);
    headers.emplace("Content-Type", "application/connect+json");
    auto message = make(http::verb::post, "/" + method, body, headers);
    http::write(out->socket_, message);
    http::read_header(out->socket_, out->buffer_, out->parser_);
    return out;
  }
  std::unique_ptr<Stream> stream(const std::string& method, const nlohmann::json& message, HeaderMap headers = {}) {
    return stream(method, message_envelope(message), std::move(headers));
  }

 private:
  void connect(boost::asio::ip::tcp::socket& socket) {
    socket.connect({boost::asio::ip::make_address("127.0.0.1"), port_});
  }
  http::request<http::string_body> make(http::verb method, const std::string& target, const std::string& body,
                                        const HeaderMap& headers) {
    http::request<http::string_body> message(method, target, 11);
    message.set(http::field::host, "guest");
    for (const auto& [name, value] : always) message.set(name, value);
    for (const auto& [name, value] : headers) message.set(name, value);
    message.body() = body;
    message.prepare_payload();
    return message;
  }
  static Answer read_answer(boost::asio::ip::tcp::socket& socket) {
    boost::beast::flat_buffer buffer;
    http::response_parser<http::string_body> parser;
    parser.body_limit(boost::none);
    http::read(socket, buffer, parser);
    Answer answer;
    answer.status = static_cast<int>(parser.get().result_int());
    answer.body = parser.get().body();
    for (const auto& field : parser.get())
      answer.headers[std::string(field.name_string())] = std::string(field.value());
    return answer;
  }

  uint16_t port_;
  boost::asio::io_context context_;
};

}  // namespace stasis::guest
