#include "guest/http_server.h"

#include <sys/socket.h>

#include <cerrno>
#include <exception>

#include "guest/console.h"

namespace stasis::guest {

HttpServer::HttpServer(UniqueFd listener, Handler handler, size_t max_connections)
    : listener_(std::move(listener)), handler_(std::move(handler)), max_connections_(max_connections) {}

void HttpServer::start() {
  acceptor_ = std::thread([this] { accept_loop(); });
}

void HttpServer::stop() {
  if (stopping_.exchange(true)) return;
  (void)shutdown(listener_.get(), SHUT_RDWR);
  changed_.notify_all();
  if (acceptor_.joinable()) acceptor_.join();
  std::unique_lock lock(mutex_);
  for (Socket* socket : open_) socket->shut_down();
  changed_.wait(lock, [this] { return threads_ == 0; });
}

void HttpServer::accept_loop() {
  while (!stopping_) {
    UniqueFd fd(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!fd) {
      if (errno == EINTR || errno == ECONNABORTED) continue;
      if (stopping_) return;
      log_line("accept failed, error " + std::to_string(errno));
      std::unique_lock lock(mutex_);  // out of descriptors or memory: let a connection end before the next try
      changed_.wait_for(lock, std::chrono::milliseconds(100));
      continue;
    }
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return threads_ < max_connections_ || stopping_; });
    if (stopping_) return;
    ++threads_;
    lock.unlock();
    try {
      std::thread([this, owned = std::move(fd)]() mutable { serve(std::move(owned)); }).detach();
    } catch (const std::exception& error) {
      log_line(std::string("cannot start a thread for a connection: ") + error.what());
      lock.lock();
      --threads_;
    }
  }
}

void HttpServer::serve(UniqueFd fd) {
  {
    Socket socket(std::move(fd));
    {
      std::lock_guard lock(mutex_);
      open_.insert(&socket);
      if (stopping_) socket.shut_down();
    }
    try {
      serve_connection(socket, handler_);
    } catch (const std::exception& error) {
      log_line(std::string("a request failed: ") + error.what());
    }
    std::lock_guard lock(mutex_);
    open_.erase(&socket);
  }
  std::lock_guard lock(mutex_);
  --threads_;
  changed_.notify_all();  // under the lock: stop() may destroy this object as soon as it has it
}

}  // namespace stasis::guest
