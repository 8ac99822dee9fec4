// GuestClient::run against a guest of this test's own, whose daemon fails at one thing or another.
#include <gtest/gtest.h>

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/write.hpp>
#include <future>
#include <list>
#include <thread>

#include "agent/envelopes.h"
#include "agent/guest_client.h"
#include "base/network.h"
#include "base/testing/eventually.h"

namespace stasis::agent {
namespace {

namespace asio = boost::asio;
using stasis::testing::eventually;

class GuestRunTest : public ::testing::Test {
 protected:
  static constexpr const char* kAddress = "127.91.7.4";

  GuestRunTest()
      : acceptor_(context_, {asio::ip::make_address(kAddress), kGuestDaemonPort}),
        client_(sockets, *parse_ipv4(kAddress), ""),
        accepting_([this] { accept(); }) {}
  void TearDown() override {
    end_command();
    (void)::shutdown(acceptor_.native_handle(), SHUT_RDWR);
    accepting_.join();
    for (std::thread& thread : serving_) thread.join();
  }

  static Result<GuestSocket> sockets(Transport transport) {
    STASIS_ASSIGN(UniqueFd socket, ip_socket(transport));
    return GuestSocket(std::move(socket));
  }

  void accept() {
    for (;;) {
      boost::system::error_code code;
      asio::ip::tcp::socket socket(context_);
      acceptor_.accept(socket, code);
      if (code) return;
      serving_.emplace_back([this, socket = std::move(socket)]() mutable { serve(socket); });
    }
  }
  void serve(asio::ip::tcp::socket& socket) {
    boost::beast::flat_buffer buffer;
    http::request<http::string_body> request;
    boost::system::error_code code;
    http::read(socket, buffer, request, code);
    if (code) return;
    const std::string_view target(request.target().data(), request.target().size());
    if (target.ends_with("/Start")) return run_command(socket);
    const bool fails = target.ends_with(failing_call_);
    http::response<http::string_body> response(fails ? http::status::internal_server_error : http::status::ok, 11);
    response.body() = fails ? R"({"code":"internal","message":"out of order"})" : "{}";
    response.prepare_payload();
    http::write(socket, response, code);
    if (target.ends_with("/SendSignal")) {
      killed_ = true;
      end_command();
    }
  }
  // A command that runs until it is killed, or the test ends.
  void run_command(asio::ip::tcp::socket& socket) {
    boost::system::error_code code;
    const auto say = [&](std::string_view text) { asio::write(socket, asio::buffer(text), code); };
    say("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
    say(encode_envelope(R"({"event":{"start":{"pid":7}}})"));
    ended_.get_future().wait();
    say(encode_envelope(R"({"event":{"end":{"exitCode":-1,"status":"signal: killed"}}})"));
  }
  void end_command() {
    if (!ending_.exchange(true)) ended_.set_value();
  }

  std::string failing_call_ = "/none";
  asio::io_context context_;
  asio::ip::tcp::acceptor acceptor_;
  std::atomic<bool> killed_ = false;
  std::atomic<bool> ending_ = false;
  std::promise<void> ended_;
  std::list<std::thread> serving_;
  GuestClient client_;
  std::thread accepting_;
};

// It would wait for the end of its input for ever.
TEST_F(GuestRunTest, ACommandWhoseInputCannotBeEndedIsKilledAndToldAsFailed) {
  failing_call_ = "/CloseStdin";
  Command command;
  command.program = "cat";
  command.stdin_data = "all of it";
  auto running = std::async(std::launch::async, [&] { return client_.run(command, {}, -1); });
  EXPECT_TRUE(eventually([&] { return killed_.load(); }));
  end_command();
  const auto end = running.get();
  ASSERT_FALSE(end);
  EXPECT_EQ(end.error().message, "send standard input: out of order");
}

}  // namespace
}  // namespace stasis::agent
