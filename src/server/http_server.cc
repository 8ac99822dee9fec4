#include "server/http_server.h"

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <condition_variable>
#include <list>
#include <mutex>
#include <thread>

#include "base/log.h"
#include "server/http_session.h"

namespace stasis::server {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

constexpr std::chrono::milliseconds kAcceptRetry{100};  // out of descriptors: some will be closed

std::string full_answer() {
  const HttpResponse response =
      error_response({Code::kUnavailable, "too many connections", "close some, or try again in a moment"});
  return "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\nRetry-After: 1\r\n"
         "Content-Length: " +
         std::to_string(response.body.size()) + "\r\n\r\n" + response.body;
}

class Server final : public HttpServer {
 public:
  Server(const HttpServerOptions& options, Handle handle) : options_(options), handle_(std::move(handle)) {}
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;
  ~Server() override { stop(); }

  Status listen() {
    error_code error;
    const auto address = asio::ip::make_address(options_.address, error);
    if (error) return fail(Code::kInvalidArgument, "'" + options_.address + "' is not an IP address");
    const tcp::endpoint endpoint(address, options_.port);
    const auto failed = [&](const char* what) {
      return fail(error == asio::error::address_in_use ? Code::kAlreadyExists : Code::kInternal,
                  std::string(what) + " " + options_.address + " port " + std::to_string(options_.port) + ": " +
                      error.message(),
                  "choose another port, or 0 for a free one");
    };
    acceptor_.open(endpoint.protocol(), error);
    if (error) return failed("open a socket for");
    acceptor_.set_option(tcp::acceptor::reuse_address(true), error);
    acceptor_.bind(endpoint, error);
    if (error) return failed("bind");
    acceptor_.listen(asio::socket_base::max_listen_connections, error);
    if (error) return failed("listen on");
    port_ = acceptor_.local_endpoint(error).port();
    accept();
    thread_ = std::thread([this] { context_.run(); });
    return {};
  }

  uint16_t port() const override { return port_; }

  bool drain(std::chrono::milliseconds patience) override {
    stop_accepting();
    std::unique_lock lock(mutex_);
    for (const auto& worker : workers_) worker->session.close(HttpSession::Close::kIfIdle);
    return finished_.wait_for(lock, patience, [this] { return running_ == 0; });
  }

  void stop() override {
    stop_accepting();
    std::list<std::unique_ptr<Worker>> workers;
    {
      const std::lock_guard lock(mutex_);
      for (const auto& worker : workers_) worker->session.close(HttpSession::Close::kNow);
      workers.swap(workers_);
    }
    for (const auto& worker : workers) worker->thread.join();
  }

 private:
  struct Worker {
    Worker(HttpSession::Socket socket, const Handle& handle) : session(socket, handle) {}
    HttpSession session;
    std::thread thread;
    bool done = false;
  };

  void stop_accepting() {
    asio::post(context_, [this] {
      error_code ignored;
      acceptor_.close(ignored);
      retry_.cancel();
    });
    if (thread_.joinable()) thread_.join();
  }

  void accept() {
    acceptor_.async_accept([this](const error_code& error, tcp::socket socket) {
      if (!acceptor_.is_open()) return;
      if (error) {
        retry_.expires_after(kAcceptRetry);
        retry_.async_wait([this](const error_code&) {
          if (acceptor_.is_open()) accept();
        });
        return;
      }
      serve(std::move(socket));
      accept();
    });
  }

  void serve(tcp::socket socket) {
    reap();
    error_code error;
    const std::lock_guard lock(mutex_);
    if (workers_.size() >= options_.max_connections) {
      static const std::string answer = full_answer();
      asio::write(socket, asio::buffer(answer), error);
      return;
    }
    socket.set_option(tcp::no_delay(true), error);
    // The session brings an event loop of its own: the socket moves there.
    const tcp protocol = acceptor_.local_endpoint(error).protocol();
    const auto handle = socket.release(error);
    if (error) return;
    auto worker = std::make_unique<Worker>(HttpSession::Socket{protocol == tcp::v6(), handle}, handle_);
    Worker* self = worker.get();
    workers_.push_back(std::move(worker));
    ++running_;
    try {
      self->thread = std::thread([this, self] { run(*self); });
    } catch (const std::system_error& failure) {
      spdlog::error("a connection was dropped: {}", failure.what());
      workers_.pop_back();
      --running_;
    }
  }

  void run(Worker& worker) {
    worker.session.run();
    const std::lock_guard lock(mutex_);
    worker.done = true;
    --running_;
    finished_.notify_all();
  }

  void reap() {
    std::list<std::unique_ptr<Worker>> ended;
    {
      const std::lock_guard lock(mutex_);
      for (auto it = workers_.begin(); it != workers_.end();) {
        const auto next = std::next(it);
        if ((*it)->done) ended.splice(ended.end(), workers_, it);
        it = next;
      }
    }
    for (const auto& worker : ended) worker->thread.join();
  }

  HttpServerOptions options_;
  Handle handle_;
  asio::io_context context_{1};
  tcp::acceptor acceptor_{context_};
  asio::steady_timer retry_{context_};
  std::thread thread_;
  uint16_t port_ = 0;

  std::mutex mutex_;
  std::condition_variable finished_;
  std::list<std::unique_ptr<Worker>> workers_;
  size_t running_ = 0;
};

}  // namespace

Result<std::unique_ptr<HttpServer>> HttpServer::start(const HttpServerOptions& options, Handle handle) {
  auto server = std::make_unique<Server>(options, std::move(handle));
  STASIS_TRY(server->listen());
  return std::unique_ptr<HttpServer>(std::move(server));
}

}  // namespace stasis::server
