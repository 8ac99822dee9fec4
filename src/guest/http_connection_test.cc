#include "guest/http_connection.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <thread>

namespace stasis::guest {
namespace {

// Sends `request` over a socket pair to a connection with `handler`, closes the sending side, and returns all that
// came.
std::string talk(const std::string& request, const Handler& handler) {
  int fds[2];
  EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
  UniqueFd client(fds[0]);
  std::thread server([&] {
    Socket socket{UniqueFd(fds[1])};
    serve_connection(socket, handler);
  });
  EXPECT_EQ(write(client.get(), request.data(), request.size()), static_cast<ssize_t>(request.size()));
  shutdown(client.get(), SHUT_WR);
  std::string answer;
  char buffer[4096];
  for (ssize_t count = 0; (count = read(client.get(), buffer, sizeof(buffer))) > 0;)
    answer.append(buffer, static_cast<size_t>(count));
  server.join();
  return answer;
}

void echo(Exchange& exchange) {
  std::string body = exchange.read_whole_body(1U << 20).value_or("(error)");
  exchange.send(
      200, {},
      std::string(exchange.method()) + " " + exchange.path() + " q=" + exchange.query("q").value_or("-") + " " + body);
}

TEST(HttpConnection, ServesRequestsOneAfterTheOther) {
  std::string answer = talk(
      "POST /a%20b?q=1%2B1 HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
      "POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n1\r\nf\r\n0\r\n\r\n",
      echo);
  EXPECT_NE(answer.find("POST /a b q=1+1 abc"), std::string::npos) << answer;
  EXPECT_NE(answer.find("POST /c q=- def"), std::string::npos) << answer;
}

TEST(HttpConnection, AnswersExpectContinueBeforeItReads) {
  std::string answer = talk("POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi", echo);
  EXPECT_TRUE(answer.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")) << answer;
}

TEST(HttpConnection, AnUnreadBodyDoesNotBecomeTheNextRequest) {
  int calls = 0;
  std::string answer = talk(
      "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 18\r\n\r\nGET /evil HTTP/1.1GET /next HTTP/1.1\r\nHost: x\r\n\r\n",
      [&](Exchange& exchange) {
        ++calls;
        exchange.send(200, {}, exchange.path());
      });
  EXPECT_EQ(calls, 2);
  EXPECT_EQ(answer.find("/evil"), std::string::npos);
  EXPECT_NE(answer.find("/next"), std::string::npos);
}

TEST(HttpConnection, MalformedRequestsAreRefused) {
  EXPECT_TRUE(talk("this is not HTTP\r\n\r\n", echo).starts_with("HTTP/1.1 400"));
  EXPECT_TRUE(talk("GET / HTTP/1.1\r\nX: " + std::string(100'000, 'x') + "\r\n\r\n", echo).starts_with("HTTP/1.1 400"));
}

TEST(HttpConnection, StreamsInChunks) {
  std::string answer = talk("GET / HTTP/1.1\r\nHost: x\r\n\r\n", [](Exchange& exchange) {
    exchange.begin_stream(200, {{"X-Own", "1"}});
    exchange.write("hello");
    exchange.write("");
    exchange.write(std::string(16, 'x'));
    exchange.finish();
  });
  EXPECT_TRUE(answer.ends_with("\r\n\r\n5\r\nhello\r\n10\r\nxxxxxxxxxxxxxxxx\r\n0\r\n\r\n")) << answer;
  EXPECT_NE(answer.find("X-Own: 1\r\n"), std::string::npos);
}

TEST(HttpConnection, ABodyThatEndsEarlyIsAnError) {
  std::string seen;
  talk("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc", [&](Exchange& exchange) {
    auto body = exchange.read_whole_body(100);
    seen = body ? "whole" : "error";
    exchange.send(400, {}, "");
  });
  EXPECT_EQ(seen, "error");
}

}  // namespace
}  // namespace stasis::guest
