// Accepts connections and serves each on a thread of its own. The threads wait for connections themselves, three where
// there are no more to serve, so that in a guest that has just been restored the first connection needs no new thread:
// to make one and to touch its stack is a good part of what such a guest runs before its first answer. At most
// `max_connections` at once; more wait in the kernel's queue. stop() ends every connection and waits for the threads.
#pragma once

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <set>

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
  void work();
  bool add_thread();  // with mutex_
  UniqueFd accept_one();
  void serve(UniqueFd fd);

  UniqueFd listener_;
  Handler handler_;
  size_t max_connections_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::set<Socket*> open_;
  size_t threads_ = 0;
  size_t waiting_ = 0;  // of these, for a connection
  std::atomic<bool> stopping_ = false;
};

}  // namespace stasis::guest
