#include "guest/http_server.h"

#include <sys/socket.h>

#include <cerrno>
#include <exception>
#include <thread>

#include "guest/console.h"

namespace stasis::guest {
namespace {

// One that serves, one whose connection is just ending, and one that waits: none has to be made for requests that
// follow one another.
constexpr size_t kWaiting = 3;

}  // namespace

HttpServer::HttpServer(UniqueFd listener, Handler handler, size_t max_connections)
    : listener_(std::move(listener)), handler_(std::move(handler)), max_connections_(max_connections) {}

void HttpServer::start() {
  std::lock_guard lock(mutex_);
  while (waiting_ < kWaiting && add_thread()) {
  }
}

void HttpServer::stop() {
  if (stopping_.exchange(true)) return;
  (void)shutdown(listener_.get(), SHUT_RDWR);
  std::unique_lock lock(mutex_);
  changed_.notify_all();
  for (Socket* socket : open_) socket->shut_down();
  changed_.wait(lock, [this] { return threads_ == 0; });
}

bool HttpServer::add_thread() {
  if (threads_ == max_connections_ || stopping_) return false;
  try {
    std::thread([this] { work(); }).detach();
  } catch (const std::exception& error) {
    log_line(std::string("cannot start a thread for connections: ") + error.what());
    return false;
  }
  ++threads_;
  ++waiting_;
  return true;
}

void HttpServer::work() {
  while (UniqueFd fd = accept_one()) {
    std::unique_lock lock(mutex_);
    if (--waiting_ == 0) (void)add_thread();
    lock.unlock();
    serve(std::move(fd));
    lock.lock();
    if (waiting_ >= kWaiting) break;
    ++waiting_;
  }
  std::lock_guard lock(mutex_);
  --threads_;
  changed_.notify_all();  // under the lock: stop() may destroy this object as soon as it has it
}

// None when the server stops.
UniqueFd HttpServer::accept_one() {
  while (!stopping_) {
    UniqueFd fd(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (fd) return fd;
    if (errno == EINTR || errno == ECONNABORTED || stopping_) continue;
    log_line("accept failed, error " + std::to_string(errno));
    std::unique_lock lock(mutex_);  // out of descriptors or memory: let a connection end before the next try
    changed_.wait_for(lock, std::chrono::milliseconds(100), [this] { return stopping_.load(); });
  }
  return UniqueFd();
}

void HttpServer::serve(UniqueFd fd) {
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

}  // namespace stasis::guest
