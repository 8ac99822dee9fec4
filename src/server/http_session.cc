#include "server/http_session.h"

#include <algorithm>
#include <array>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/websocket/rfc6455.hpp>
#include <chrono>
#include <optional>
#include <thread>

#include "base/log.h"
#include "server/websocket.h"

namespace stasis::server {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using asio::ip::tcp;
using boost::system::error_code;
using std::chrono::seconds;

constexpr seconds kIdle{60};     // between requests
constexpr seconds kPiece{60};    // for the next piece of a body, or to take one
constexpr seconds kAnswer{300};  // to take an answer
constexpr seconds kLinger{2};    // for the rest of a body that nobody wants, so that the answer to it arrives
constexpr size_t kMaxLinger = 16 << 20;
constexpr uint32_t kMaxHeader = 32 * 1024;
constexpr size_t kPieceSize = 64 * 1024;

std::string lower(std::string_view text) {
  std::string result(text);
  std::transform(result.begin(), result.end(), result.begin(), [](unsigned char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : static_cast<char>(c);
  });
  return result;
}

Error connection_error(const error_code& error, std::string_view doing) {
  const Code code = error == beast::error::timeout ? Code::kDeadlineExceeded : Code::kCancelled;
  return {code, std::string(doing) + ": " + error.message(), ""};
}

}  // namespace

class HttpSession::Connection final : public Exchange {
 public:
  Connection(Socket socket, const Handle& handle)
      : stream_(tcp::socket(context_, socket.v6 ? tcp::v6() : tcp::v4(), socket.handle)), handle_(handle) {}

  void run() {
    while (!closing_ && serve_one()) {
    }
    linger();
    stream_.close();
  }

  void close(Close how) {
    asio::post(context_, [this, how] {
      closing_ = true;
      if (how == Close::kNow || !busy_) stream_.close();
    });
  }

  const HttpRequest& request() const override { return request_; }
  bool body_too_large() const override { return too_large_; }

  Result<std::string> read_body(uint64_t limit) override {
    const auto length = parser_->content_length();
    too_large_ = length && *length > limit;
    std::string body;
    while (!too_large_) {
      STASIS_ASSIGN(const std::string_view piece, read_some());
      if (piece.empty()) return body;
      too_large_ = body.size() + piece.size() > limit;
      if (!too_large_) body += piece;
    }
    return fail(Code::kOutOfRange, "the body is longer than " + std::to_string(limit) + " bytes",
                "send large content as a file, with Content-Type application/octet-stream");
  }

  Result<std::string_view> read_some() override {
    if (expects_continue_) {
      expects_continue_ = false;
      constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
      const error_code error = wait(kPiece, [&](auto done) {
        asio::async_write(stream_, asio::buffer(kContinue.data(), kContinue.size()), done);
      });
      if (error) return fail(connection_error(error, "asking for the body"));
    }
    piece_.resize(kPieceSize);
    size_t count = 0;
    while (count == 0 && !parser_->is_done()) {
      auto& body = parser_->get().body();
      body.data = piece_.data();
      body.size = piece_.size();
      error_code error = wait(kPiece, [&](auto done) { http::async_read_some(stream_, buffer_, *parser_, done); });
      if (error == http::error::need_buffer) error = {};
      if (error) {
        broken_ = true;
        return fail(connection_error(error, "reading the request's body"));
      }
      count = piece_.size() - body.size;
    }
    return std::string_view(piece_.data(), count);
  }

  Status begin(std::string_view content_type) override {
    begun_ = true;
    http::response<http::empty_body> response{http::status::ok, 11};
    response.set(http::field::content_type, beast::string_view(content_type.data(), content_type.size()));
    response.chunked(true);
    response.keep_alive(keep_alive());
    http::response_serializer<http::empty_body> serializer(response);
    return sent(wait(kPiece, [&](auto done) { http::async_write_header(stream_, serializer, done); }));
  }

  Status write(std::string_view piece) override {
    if (piece.empty()) return {};  // an empty chunk would be the last one
    return sent(wait(kPiece, [&](auto done) {
      asio::async_write(stream_, http::make_chunk(asio::buffer(piece.data(), piece.size())), done);
    }));
  }

  Status finish() override {
    STASIS_TRY(sent(wait(kPiece, [&](auto done) { asio::async_write(stream_, http::make_chunk_last(), done); })));
    begun_ = false;
    return {};
  }

  void while_connected(const std::function<void()>& work, const std::function<void()>& on_gone) override {
    context_.restart();
    const auto guard = asio::make_work_guard(context_);
    bool finished = false;
    std::thread thread([&] {
      work();
      asio::post(context_, [&] { finished = true; });
    });
    stream_.socket().async_wait(tcp::socket::wait_read, [&](const error_code& error) {
      if (!finished && (error || at_end())) on_gone();
    });
    while (!finished) context_.run_one();
    thread.join();
    error_code ignored;
    stream_.socket().cancel(ignored);
    context_.poll();  // the handler above, while what it refers to is there
  }

  Result<std::string> accept_websocket(uint64_t limit) override {
    busy_ = false;   // a stream has no end to wait for
    broken_ = true;  // no HTTP on this connection any more
    stream_.expires_never();
    socket_ = make_websocket(context_, stream_);
    return socket_->accept(parser_->get(), limit);
  }

  void run_websocket(const std::function<void(WebSocketSender&)>& producer,
                     const std::function<void()>& on_gone) override {
    socket_->run(producer, on_gone);
  }

 private:
  // Runs one asynchronous operation to its end. Its handler takes an error_code first.
  template <typename Start>
  error_code wait(seconds limit, Start start) {
    std::optional<error_code> result;
    stream_.expires_after(limit);
    context_.restart();
    start([&result](const error_code& error, auto&&...) { result = error; });
    while (!result && context_.run_one() > 0) {
    }
    return result.value_or(asio::error::operation_aborted);
  }

  Status sent(const error_code& error) {
    if (!error) return {};
    broken_ = true;
    return fail(connection_error(error, "sending the answer"));
  }

  // Readable because the other side has closed, not because it has sent its next request early.
  bool at_end() {
    char byte;
    error_code error;
    return stream_.socket().receive(asio::buffer(&byte, 1), tcp::socket::message_peek, error) == 0;
  }

  bool keep_alive() const { return parser_->get().keep_alive() && parser_->is_done() && !closing_ && !broken_; }

  // False when the connection is to be closed.
  bool serve_one() {
    if (!read_head()) return false;
    busy_ = true;
    HttpResponse response = well_formed_ ? handle_(*this) : error_response(malformed_);
    const bool go_on = answer(response);
    busy_ = false;
    return go_on;
  }

  bool read_head() {
    parser_.emplace();
    parser_->header_limit(kMaxHeader);
    parser_->body_limit(boost::none);  // handlers have limits of their own
    request_ = {};
    too_large_ = begun_ = false;
    socket_.reset();
    const error_code error = wait(kIdle, [&](auto done) { http::async_read_header(stream_, buffer_, *parser_, done); });
    if (error) return refuse_head(error);
    const auto& message = parser_->get();
    request_.method = std::string(message.method_string());
    for (const auto& field : message) request_.headers.emplace(lower(field.name_string()), std::string(field.value()));
    request_.upgrade = beast::websocket::is_upgrade(message);
    expects_continue_ = beast::iequals(message[http::field::expect], "100-continue");
    const Status parsed = parse_target(message.target(), request_);
    well_formed_ = parsed.has_value();
    if (!parsed) malformed_ = parsed.error();
    return true;
  }

  // What is not HTTP gets one answer; a client that has gone or was silent gets none.
  bool refuse_head(const error_code& error) {
    broken_ = true;
    if (error.category() != http::make_error_code(http::error::bad_target).category()) return false;
    if (error == http::error::end_of_stream || error == http::error::partial_message) return false;
    const bool large = error == http::error::header_limit;
    HttpResponse response = error_response(
        {Code::kInvalidArgument, "the request is not HTTP that is understood here: " + error.message(), ""},
        large ? std::optional<unsigned>(431) : std::nullopt);
    send(response);
    return false;
  }

  bool answer(HttpResponse& response) {
    if (response.sent || begun_ || socket_) {
      if (begun_) broken_ = true;  // begun and not finished: cut off
      return !broken_ && keep_alive();
    }
    return send(response);
  }

  bool send(HttpResponse& response) {
    http::response<http::string_body> message{static_cast<http::status>(response.status), 11};
    for (const auto& [name, value] : response.headers) message.set(name, value);
    const bool stays = keep_alive();
    message.keep_alive(stays);
    if (response.status != 204) {
      message.set(http::field::content_type, response.content_type);
      message.body() = std::move(response.body);
      message.prepare_payload();
    }
    const error_code error = wait(kAnswer, [&](auto done) { http::async_write(stream_, message, done); });
    if (error) broken_ = true;
    return !error && stays;
  }

  // Closing while the other side still sends would make its kernel throw the answer away.
  void linger() {
    if (!stream_.socket().is_open() || socket_) return;
    error_code ignored;
    stream_.socket().shutdown(tcp::socket::shutdown_send, ignored);
    piece_.resize(kPieceSize);
    const auto end = std::chrono::steady_clock::now() + kLinger;
    for (size_t total = 0; total < kMaxLinger && std::chrono::steady_clock::now() < end; total += kPieceSize) {
      const error_code error = wait(kLinger, [&](auto done) { stream_.async_read_some(asio::buffer(piece_), done); });
      if (error) return;
    }
  }

  asio::io_context context_{1};
  beast::tcp_stream stream_;
  const Handle& handle_;
  beast::flat_buffer buffer_;
  std::optional<http::request_parser<http::buffer_body>> parser_;
  HttpRequest request_;
  std::string piece_;
  std::unique_ptr<WebSocket> socket_;
  Error malformed_;
  bool well_formed_ = false;
  bool expects_continue_ = false;
  bool too_large_ = false;
  bool begun_ = false;   // a streamed answer that is not finished
  bool broken_ = false;  // no further request on this connection
  bool busy_ = false;
  bool closing_ = false;
};

HttpSession::HttpSession(Socket socket, const Handle& handle)
    : connection_(std::make_unique<Connection>(socket, handle)) {}

HttpSession::~HttpSession() = default;

void HttpSession::run() {
  try {
    connection_->run();
  } catch (const std::exception& error) {
    spdlog::error("a connection ended: {}", error.what());
  }
}

void HttpSession::close(Close how) { connection_->close(how); }

}  // namespace stasis::server
