#include "guest/http_connection.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
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

// Two ends of a connection on this machine: one that listen_on() has accepted, and its peer.
std::pair<UniqueFd, UniqueFd> connection() {
  const UniqueFd listener = listen_on("127.0.0.1", 0);
  UniqueFd peer(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in name{};
  name.sin_family = AF_INET;
  name.sin_port = htons(bound_port(listener.get()));
  name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(connect(peer.get(), reinterpret_cast<sockaddr*>(&name), sizeof(name)), 0);
  return {UniqueFd(accept(listener.get(), nullptr, nullptr)), std::move(peer)};
}

int user_timeout(int fd) {
  int value = -1;
  socklen_t length = sizeof(value);
  EXPECT_EQ(getsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &value, &length), 0);
  return value;
}

TEST(Socket, APeerThatReadsNothingIsGivenUpUnlessItMayTakeItsTime) {
  const std::string large(size_t{64} << 20, 'x');
  auto [impatient, deaf] = connection();
  Socket socket(std::move(impatient));
  EXPECT_GT(user_timeout(socket.fd()), 0);
  socket.write_limit = std::chrono::milliseconds(20);
  EXPECT_FALSE(socket.write_all(large));
  auto [patient, slow] = connection();
  Socket stream(std::move(patient));
  stream.write_limit = std::chrono::milliseconds(20);
  stream.let_peer_take_its_time();
  EXPECT_EQ(user_timeout(stream.fd()), 0);
  bool all = false;
  std::thread writer([&] { all = stream.write_all(large); });
  std::this_thread::sleep_for(std::chrono::milliseconds(200));  // the silence itself
  std::vector<char> buffer(1 << 20);
  size_t got = 0;
  while (got < large.size()) {
    const ssize_t count = read(slow.get(), buffer.data(), buffer.size());
    if (count <= 0) break;
    got += static_cast<size_t>(count);
  }
  slow.reset();
  writer.join();
  EXPECT_EQ(got, large.size());
  EXPECT_TRUE(all);
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
