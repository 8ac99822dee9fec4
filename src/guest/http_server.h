// Accepts connections and serves each on a thread of its own. At most `max_connections` at once; more wait in the
// kernel's queue. stop() ends every connection and waits for their threads.
#pragma once

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <set>
#include <thread>

#include "base/fd.h"
#include "guest/http_connection.h"

namespace stasis::guest {

class HttpServer {
 public:
  HttpServer(UniqueFd listener, Handler handler, size_t max_connections = 256);
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;
  ~HttpServer() { stop(); }

  void start();
  void stop();

 private:
  void accept_loop();
  void serve(UniqueFd fd);

  UniqueFd listener_;
  Handler handler_;
  size_t max_connections_;
  std::thread acceptor_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::set<Socket*> open_;
  size_t threads_ = 0;
  std::atomic<bool> stopping_ = false;
};

}  // namespace stasis::guest
