#include "guest/http_connection.h"

#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <cstdio>
#include <optional>

#include "guest/text.h"

namespace stasis::guest {
namespace {

namespace http = boost::beast::http;
using Parser = http::request_parser<http::buffer_body>;

constexpr uint32_t kHeadLimit = 64U << 10;
constexpr size_t kBufferLimit = size_t{256} << 10;
// How much of a body that nobody wanted is read. Beyond that the connection is closed, which a client that is still
// sending may see before it sees the answer.
constexpr size_t kDrainLimit = size_t{64} << 20;

class BeastExchange final : public Exchange {
 public:
  BeastExchange(Socket& socket, boost::beast::flat_buffer& buffer, Parser& parser)
      : socket_(socket), buffer_(buffer), parser_(parser) {
    std::string_view target(parser.get().target().data(), parser.get().target().size());
    size_t question = target.find('?');
    if (question != std::string_view::npos) query_ = parse_query(target.substr(question + 1));
    path_ = percent_decode(target.substr(0, question), false).value_or("");
  }

  std::string_view method() const override {
    auto text = parser_.get().method_string();
    return {text.data(), text.size()};
  }
  const std::string& path() const override { return path_; }
  std::optional<std::string> query(std::string_view name) const override {
    for (const auto& [key, value] : query_) {
      if (key == name) return value;
    }
    return std::nullopt;
  }
  std::string header(std::string_view name) const override {
    auto value = parser_.get()[boost::beast::string_view(name.data(), name.size())];
    return {value.data(), value.size()};
  }
  Headers headers_with_prefix(std::string_view lower_case_prefix) const override {
    Headers out;
    for (const auto& field : parser_.get()) {
      std::string name = lower_case({field.name_string().data(), field.name_string().size()});
      if (name.starts_with(lower_case_prefix)) out.emplace_back(name, std::string(field.value()));
    }
    return out;
  }

  Result<size_t> read_body(std::span<char> out) override {
    if (!parser_.is_done() && !continued_ && header("Expect") == "100-continue") {
      continued_ = true;
      if (!socket_.write_all("HTTP/1.1 100 Continue\r\n\r\n")) return fail(Code::kUnavailable, "the client went away");
    }
    auto& body = parser_.get().body();
    while (!parser_.is_done()) {
      body.data = out.data();
      body.size = out.size();
      boost::system::error_code error;
      http::read_some(socket_, buffer_, parser_, error);
      size_t count = out.size() - body.size;
      body.data = nullptr;
      body.size = 0;
      if (error && error != http::error::need_buffer) {
        return fail(Code::kUnavailable, "the request body ended early: " + error.message());
      }
      if (count > 0) return count;
    }
    return 0;
  }

  void send(int status, const Headers& headers, std::string_view body) override {
    bool no_body = status == 204 || status == 304;
    std::string text = head(status, headers);
    if (!no_body) text += "Content-Length: " + std::to_string(body.size()) + "\r\n";
    text += "\r\n";
    if (!no_body && method() != "HEAD") text += body;
    deliver(text);
  }
  bool begin(int status, const Headers& headers, uint64_t length) override {
    return deliver(head(status, headers) + "Content-Length: " + std::to_string(length) + "\r\n\r\n");
  }
  bool begin_stream(int status, const Headers& headers) override {
    chunked_ = true;
    return deliver(head(status, headers) + "Transfer-Encoding: chunked\r\n\r\n");
  }
  bool write(std::string_view data) override {
    if (data.empty() || failed_) return !failed_;
    if (!chunked_) return deliver(data);
    char size[24];
    int length = std::snprintf(size, sizeof(size), "%zx\r\n", data.size());
    std::string chunk;
    chunk.reserve(data.size() + 32);
    chunk.append(size, static_cast<size_t>(length)).append(data).append("\r\n");
    return deliver(chunk);
  }
  void finish() override {
    if (chunked_) deliver("0\r\n\r\n");
  }
  Socket& socket() override { return socket_; }
  bool answered() const override { return answered_; }

  // True if another request can follow on this connection.
  bool reusable() {
    if (failed_ || !keep_alive_ || !parser_.get().keep_alive()) return false;
    if (parser_.is_done()) return true;
    std::vector<char> rest(size_t{16} << 10);
    for (size_t drained = 0; !parser_.is_done() && drained < kDrainLimit;) {
      if (!continued_ && header("Expect") == "100-continue") return false;
      auto count = read_body(rest);
      if (!count) return false;
      drained += *count;
    }
    return parser_.is_done();
  }

 private:
  std::string head(int status, const Headers& headers) {
    auto reason = http::obsolete_reason(http::int_to_status(static_cast<unsigned>(status)));
    std::string text = "HTTP/1.1 " + std::to_string(status) + " " + std::string(reason) + "\r\n";
    for (const auto& [name, value] : headers) text.append(name).append(": ").append(value).append("\r\n");
    text += "Access-Control-Allow-Origin: *\r\n";
    keep_alive_ = parser_.get().keep_alive();
    if (!keep_alive_) text += "Connection: close\r\n";
    answered_ = true;
    return text;
  }
  bool deliver(std::string_view data) {
    if (!failed_) failed_ = !socket_.write_all(data);
    return !failed_;
  }

  Socket& socket_;
  boost::beast::flat_buffer& buffer_;
  Parser& parser_;
  std::string path_;
  std::vector<std::pair<std::string, std::string>> query_;
  bool chunked_ = false;
  bool answered_ = false;
  bool failed_ = false;
  bool keep_alive_ = true;
  bool continued_ = false;
};

// Reads a head and handles one request; true if another may follow.
bool serve_one(Socket& socket, boost::beast::flat_buffer& buffer, const Handler& handler) {
  Parser parser;
  parser.header_limit(kHeadLimit);
  parser.body_limit(boost::none);
  boost::system::error_code error;
  http::read_header(socket, buffer, parser, error);
  if (error) {
    bool malformed = error.category() == http::make_error_code(http::error::bad_method).category() &&
                     error != http::error::end_of_stream && error != http::error::partial_message;
    if (malformed) socket.write_all("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    return false;
  }
  BeastExchange exchange(socket, buffer, parser);
  handler(exchange);
  if (!exchange.answered()) send_http_error(exchange, 500, "the request was not answered");
  return exchange.reusable();
}

}  // namespace

void serve_connection(Socket& socket, const Handler& handler) {
  boost::beast::flat_buffer buffer(kBufferLimit);
  while (serve_one(socket, buffer, handler)) {
  }
}

}  // namespace stasis::guest
