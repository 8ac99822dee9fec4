// One connection: requests one after the other, each handed to the handler as an Exchange. Runs in the thread that
// calls run(); the operations on the socket are asynchronous only so that each has a time limit and close() can end
// them.
#pragma once

#include <functional>
#include <memory>

#include "server/http.h"

namespace stasis::server {

class HttpSession {
 public:
  enum class Close { kIfIdle, kNow };
  struct Socket {
    bool v6 = false;
    int handle = -1;
  };
  using Handle = std::function<HttpResponse(Exchange&)>;

  // Owns the socket. `handle` must outlive this.
  HttpSession(Socket socket, const Handle& handle);
  ~HttpSession();
  HttpSession(const HttpSession&) = delete;
  HttpSession& operator=(const HttpSession&) = delete;

  void run();
  // From any thread. kIfIdle: at once between requests and in a WebSocket, else after the request under way.
  void close(Close how);

 private:
  class Connection;
  std::unique_ptr<Connection> connection_;
};

}  // namespace stasis::server
