// A REST server for tests of the client: answers what the test says, and keeps what it was asked. It serves one
// connection after the other on a port of its own on 127.0.0.1.
#pragma once

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace stasis::cli {

struct FakeRequest {
  std::string method;  // "WEBSOCKET" for an upgraded connection: the body is the client's first message
  std::string target;
  std::string body;
  std::map<std::string, std::string> headers;  // names in lower case
};

struct FakeReply {
  unsigned status = 200;
  std::string body = "{}";
  // For an upgrade: the messages to send once the client has sent its own.
  std::vector<std::string> messages = {};
  // Closes the connection in the middle of this reply.
  bool cut_short = false;
};

class FakeServer {
 public:
  using Handler = std::function<FakeReply(const FakeRequest&)>;

  explicit FakeServer(Handler handler);
  FakeServer(const FakeServer&) = delete;
  FakeServer& operator=(const FakeServer&) = delete;
  ~FakeServer();

  std::string url() const;
  std::vector<FakeRequest> requests() const;

 private:
  void serve();
  void serve_one(boost::asio::ip::tcp::socket socket);
  FakeReply answer(FakeRequest request);

  Handler handler_;
  boost::asio::io_context context_;
  boost::asio::ip::tcp::acceptor acceptor_;
  mutable std::mutex mutex_;
  std::vector<FakeRequest> requests_;
  std::atomic<bool> stopping_ = false;
  std::thread thread_;
};

}  // namespace stasis::cli
