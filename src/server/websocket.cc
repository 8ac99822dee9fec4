#include "server/websocket.h"

#include <netinet/in.h>
#include <netinet/tcp.h>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/buffers_to_string.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/websocket.hpp>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <thread>

namespace stasis::server {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace websocket = beast::websocket;
using boost::system::error_code;
using std::chrono::seconds;

constexpr seconds kFirstMessage{30};
constexpr seconds kHandshake{30};
constexpr int kKeepaliveSeconds = 15;
constexpr size_t kMaxQueued = 1 << 20;

// Texts on their way from the producer's thread to the socket's.
class Queue final : public WebSocketSender {
 public:
  explicit Queue(std::function<void()> on_text) : on_text_(std::move(on_text)) {}

  bool send(std::string text) override {
    std::unique_lock lock(mutex_);
    space_.wait(lock, [this] { return closed_ || bytes_ < kMaxQueued; });
    if (closed_) return false;
    bytes_ += text.size();
    texts_.push_back(std::move(text));
    lock.unlock();
    on_text_();
    return true;
  }

  bool take(std::string& text) {
    const std::lock_guard lock(mutex_);
    if (texts_.empty()) return false;
    text = std::move(texts_.front());
    texts_.pop_front();
    bytes_ -= text.size();
    space_.notify_all();
    return true;
  }

  void close() {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    space_.notify_all();
  }

 private:
  std::function<void()> on_text_;
  std::mutex mutex_;
  std::condition_variable space_;
  std::deque<std::string> texts_;
  size_t bytes_ = 0;
  bool closed_ = false;
};

class Socket final : public WebSocket {
 public:
  Socket(asio::io_context& context, beast::tcp_stream& stream, std::chrono::milliseconds ping)
      : context_(context), stream_(stream), socket_(stream), ping_(ping) {
    websocket::stream_base::timeout limits{};
    limits.handshake_timeout = kHandshake;
    limits.idle_timeout = websocket::stream_base::none();
    limits.keep_alive_pings = false;
    socket_.set_option(limits);
    find_vanished_peers();
  }

  Result<std::string> accept(const Request& request, uint64_t limit) override {
    socket_.read_message_max(limit);
    error_code error = wait([&](auto done) { socket_.async_accept(request, done); });
    if (error) return fail(Code::kCancelled, "accepting a WebSocket: " + error.message());
    asio::steady_timer timer(context_, kFirstMessage);
    timer.async_wait([this](const error_code& cancelled) {
      if (!cancelled) stream_.close();
    });
    error = wait([&](auto done) { socket_.async_read(buffer_, done); });
    timer.cancel();
    if (error) return fail(Code::kCancelled, "waiting for the first message of a WebSocket: " + error.message());
    std::string message = beast::buffers_to_string(buffer_.data());
    buffer_.clear();
    return message;
  }

  void run(const std::function<void(WebSocketSender&)>& producer, const std::function<void()>& on_gone) override {
    Queue queue([this] { asio::post(context_, [this] { pump(); }); });
    queue_ = &queue;
    on_gone_ = on_gone;
    context_.restart();
    const auto work = asio::make_work_guard(context_);
    listen();
    ping_later();
    std::thread thread([&] {
      producer(queue);
      asio::post(context_, [this] {
        produced_ = true;
        pump();
      });
    });
    // Not run(): the socket's own timer would keep it for its whole span.
    while (!(gone_ && produced_ && !writing_ && !reading_ && !pinging_)) context_.run_one();
    thread.join();
    queue_ = nullptr;
  }

 private:
  template <typename Start>
  error_code wait(Start start) {
    std::optional<error_code> result;
    context_.restart();
    start([&result](const error_code& error, auto&&...) { result = error; });
    while (!result && context_.run_one() > 0) {
    }
    return result.value_or(asio::error::operation_aborted);
  }

  void find_vanished_peers() {
    using Idle = asio::detail::socket_option::integer<IPPROTO_TCP, TCP_KEEPIDLE>;
    using Interval = asio::detail::socket_option::integer<IPPROTO_TCP, TCP_KEEPINTVL>;
    error_code ignored;
    stream_.socket().set_option(asio::socket_base::keep_alive(true), ignored);
    stream_.socket().set_option(Idle(kKeepaliveSeconds), ignored);
    stream_.socket().set_option(Interval(kKeepaliveSeconds), ignored);
  }

  // One at a time: behind a write that waits for its reader it waits too.
  void ping_later() {
    timer_.expires_after(ping_);
    timer_.async_wait([this](const error_code& cancelled) {
      if (cancelled || gone_) return;
      pinging_ = true;
      socket_.async_ping({}, [this](const error_code& error) {
        pinging_ = false;
        if (!error) ping_later();
      });
    });
  }

  // What the client says after its first message is nothing; that it goes is.
  void listen() {
    reading_ = true;
    socket_.async_read(buffer_, [this](const error_code& error, size_t) {
      reading_ = false;
      buffer_.clear();
      if (error) {
        stream_.close();  // also ends what waits for it to read
        gone();
      } else {
        listen();
      }
    });
  }

  void gone() {
    if (!gone_) {
      gone_ = true;
      queue_->close();
      if (!produced_) on_gone_();
    }
    pump();  // each time: the one that finds no write under way any more lets run() end
  }

  void pump() {
    if (writing_ || gone_) return;
    if (queue_->take(text_)) {
      writing_ = true;
      socket_.text(true);
      socket_.async_write(asio::buffer(text_), [this](const error_code& error, size_t) {
        writing_ = false;
        if (error) {
          stream_.close();
          gone();
        } else {
          pump();
        }
      });
    } else if (produced_) {
      writing_ = true;
      socket_.async_close(websocket::close_code::normal, [this](const error_code&) {
        writing_ = false;
        stream_.close();  // also ends listen()
        gone();
      });
    }
  }

  asio::io_context& context_;
  beast::tcp_stream& stream_;
  websocket::stream<beast::tcp_stream&> socket_;
  beast::flat_buffer buffer_;
  const std::chrono::milliseconds ping_;
  asio::steady_timer timer_{context_};
  Queue* queue_ = nullptr;
  std::function<void()> on_gone_;
  std::string text_;
  bool reading_ = false;
  bool writing_ = false;
  bool pinging_ = false;
  bool produced_ = false;
  bool gone_ = false;
};

}  // namespace

std::unique_ptr<WebSocket> make_websocket(asio::io_context& context, beast::tcp_stream& stream,
                                          std::chrono::milliseconds ping) {
  return std::make_unique<Socket>(context, stream, ping);
}

}  // namespace stasis::server
