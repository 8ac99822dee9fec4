// The asker of greetings against a guest of this test's own, over UDP; and whom GuestClient asks in which way.
#include "agent/guest_greeting.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <atomic>
#include <future>
#include <thread>

#include "agent/guest_client.h"
#include "base/network.h"

namespace stasis::agent {
namespace {

using What = GreetingQuestion::What;

class GuestGreetingTest : public ::testing::Test {
 protected:
  GuestGreetingTest() : guest_(*ip_socket(Transport::kUdp)), ended_(*Event::create()) {
    sockaddr_in name{};
    name.sin_family = AF_INET;
    name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::bind(guest_.get(), reinterpret_cast<sockaddr*>(&name), sizeof name), 0);
    socklen_t length = sizeof name;
    EXPECT_EQ(::getsockname(guest_.get(), reinterpret_cast<sockaddr*>(&name), &length), 0);
    UniqueFd socket = *ip_socket(Transport::kUdp);
    EXPECT_TRUE(connect_ip(socket.get(), ipv4(127, 0, 0, 1), ntohs(name.sin_port), Deadline::never()));
    const Interrupt ended{ended_.fd(), {Code::kUnavailable, "the sandbox has ended"}};
    greeting_.emplace(std::move(socket), UniqueFd(), std::vector{ended});
  }

  std::future<Status> ask(What what, std::string body = {}, Milliseconds limit = Milliseconds(10'000)) {
    return std::async(std::launch::async, [this, what, body = std::move(body), limit] {
      return greeting_->ask(what, body, Deadline::after(limit));
    });
  }
  GreetingQuestion take() {
    sockaddr_in from{};
    socklen_t length = sizeof from;
    const ssize_t count =
        ::recvfrom(guest_.get(), buffer_.data(), buffer_.size(), 0, reinterpret_cast<sockaddr*>(&from), &length);
    EXPECT_GT(count, 0);
    from_ = from;
    const auto question = decode_question({buffer_.data(), static_cast<size_t>(count)});
    EXPECT_TRUE(question);
    return question.value_or(GreetingQuestion{});
  }
  void give(const std::string& datagram) {
    EXPECT_EQ(
        ::sendto(guest_.get(), datagram.data(), datagram.size(), 0, reinterpret_cast<sockaddr*>(&from_), sizeof from_),
        static_cast<ssize_t>(datagram.size()));
  }

  UniqueFd guest_;
  Event ended_;
  std::optional<GuestGreeting> greeting_;
  std::array<char, 2048> buffer_{};
  sockaddr_in from_{};
};

TEST_F(GuestGreetingTest, IsAnswered) {
  auto asked = ask(What::kInit, "{}");
  const GreetingQuestion question = take();
  EXPECT_EQ(question.what, What::kInit);
  EXPECT_EQ(question.body, "{}");
  give(encode(GreetingAnswer{question.nonce, 204, {}}));
  EXPECT_TRUE(asked.get());
}

TEST_F(GuestGreetingTest, AsksTheSameAgainUntilItIsAnswered) {
  auto asked = ask(What::kAreYouThere);
  const GreetingQuestion first = take();
  EXPECT_EQ(take().nonce, first.nonce);
  EXPECT_EQ(take().nonce, first.nonce);
  give(encode(GreetingAnswer{first.nonce, 204, {}}));
  EXPECT_TRUE(asked.get());
}

TEST_F(GuestGreetingTest, TakesOnlyTheAnswerToItsQuestion) {
  auto asked = ask(What::kAreYouThere);
  GreetingNonce nonce = take().nonce;
  GreetingNonce other = nonce;
  ++other[3];
  give(encode(GreetingAnswer{other, 500, "another's"}));
  give("nonsense");
  give("");
  give(encode(GreetingAnswer{nonce, 204, {}}));
  EXPECT_TRUE(asked.get());
}

TEST_F(GuestGreetingTest, WhatTheGuestRefusesIsToldWithItsCode) {
  auto asked = ask(What::kInit, "{}");
  give(encode(GreetingAnswer{take().nonce, 400, "the body is no JSON"}));
  const Status refused = asked.get();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::kInvalidArgument);
}

TEST_F(GuestGreetingTest, AGuestThatTakesNoneIsToldAtOnce) {
  guest_.reset();
  const Status refused = greeting_->ask(What::kAreYouThere, "", Deadline::never());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::kUnavailable);
}

TEST_F(GuestGreetingTest, ASilentGuestIsGivenUpInTime) {
  const Status late = greeting_->ask(What::kAreYouThere, "", Deadline::after(Milliseconds(50)));
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().code, Code::kDeadlineExceeded);
}

TEST_F(GuestGreetingTest, TheSandboxesEndEndsIt) {
  auto asked = ask(What::kAreYouThere);
  (void)take();
  ended_.set();
  const Status ended = asked.get();
  ASSERT_FALSE(ended);
  EXPECT_EQ(ended.error().message, "the sandbox has ended");
}

TEST_F(GuestGreetingTest, TooLargeABodyIsRefused) {
  EXPECT_FALSE(greeting_->ask(What::kInit, std::string(kMaxQuestionBody + 1, 'x'), Deadline::never()));
}

// A guest's daemon on an address of this test's own: HTTP, which says 204 to everything, and datagrams only if wanted.
class GuestClientTest : public ::testing::Test {
 protected:
  static constexpr Ipv4Address kAddress = ipv4(127, 91, 7, 3);

  GuestClientTest() : http_(bound(Transport::kTcp)), client_(sockets, kAddress, "") {
    EXPECT_EQ(::listen(http_.get(), 8), 0);
    http_thread_ = std::thread([this] { serve_http(); });
  }
  void TearDown() override {
    (void)::shutdown(http_.get(), SHUT_RDWR);
    http_thread_.join();
    if (!datagrams_) return;
    (void)::shutdown(datagrams_.get(), SHUT_RDWR);
    datagram_thread_.join();
  }

  static Result<GuestSocket> sockets(Transport transport) {
    STASIS_ASSIGN(UniqueFd socket, ip_socket(transport));
    return GuestSocket(std::move(socket));
  }
  static UniqueFd bound(Transport transport) {
    UniqueFd socket = *ip_socket(transport);
    const int on = 1;
    EXPECT_EQ(::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on), 0);
    sockaddr_in name{};
    name.sin_family = AF_INET;
    name.sin_addr.s_addr = htonl(kAddress.value);
    name.sin_port = htons(kGuestDaemonPort);
    EXPECT_EQ(::bind(socket.get(), reinterpret_cast<sockaddr*>(&name), sizeof name), 0);
    return socket;
  }
  void take_datagrams(bool answers) {
    datagrams_ = bound(Transport::kUdp);
    datagram_thread_ = std::thread([this, answers] { serve_datagrams(answers); });
  }

  void serve_datagrams(bool answers) {
    std::array<char, 2048> buffer;
    sockaddr_in from{};
    for (;;) {
      socklen_t length = sizeof from;
      const ssize_t count =
          ::recvfrom(datagrams_.get(), buffer.data(), buffer.size(), 0, reinterpret_cast<sockaddr*>(&from), &length);
      if (count <= 0) return;
      const auto question = decode_question({buffer.data(), static_cast<size_t>(count)});
      ++greetings_;
      if (!answers || !question) continue;
      const std::string answer = encode(GreetingAnswer{question->nonce, 204, {}});
      (void)::sendto(datagrams_.get(), answer.data(), answer.size(), 0, reinterpret_cast<sockaddr*>(&from), length);
    }
  }
  void serve_http() {
    for (;;) {
      const UniqueFd connection(::accept(http_.get(), nullptr, nullptr));
      if (!connection) return;
      while (answer_request(connection.get())) {
      }
    }
  }
  bool answer_request(int connection) {
    boost::beast::flat_buffer buffer;
    std::array<char, 4096> part;
    http::request_parser<http::string_body> parser;
    parser.eager(true);
    for (boost::system::error_code code; !parser.is_done();) {
      const ssize_t count = ::recv(connection, part.data(), part.size(), 0);
      if (count <= 0) return false;
      (void)parser.put(boost::asio::buffer(part.data(), static_cast<size_t>(count)), code);
      if (code && code != http::error::need_more) return false;
    }
    ++requests_;
    constexpr std::string_view kAnswer = "HTTP/1.1 204 No Content\r\n\r\n";
    return ::send(connection, kAnswer.data(), kAnswer.size(), MSG_NOSIGNAL) > 0;
  }

  UniqueFd http_;
  UniqueFd datagrams_;
  std::atomic<int> requests_ = 0;
  std::atomic<int> greetings_ = 0;
  std::thread http_thread_;
  std::thread datagram_thread_;
  GuestClient client_;
};

TEST_F(GuestClientTest, ADaemonThatTakesDatagramsIsAskedByThemAlone) {
  take_datagrams(true);
  auto contact = client_.greet(Milliseconds(10'000), true);
  ASSERT_TRUE(contact) << contact.error().message;
  EXPECT_TRUE(client_.init({{"a", 1}}, Deadline::after(Milliseconds(10'000)), std::move(*contact)));
  EXPECT_EQ(requests_, 0);
  EXPECT_GE(greetings_, 2);
}

TEST_F(GuestClientTest, ADaemonThatTakesNoneIsAskedOverHttp) {
  auto contact = client_.greet(Milliseconds(10'000), true);
  ASSERT_TRUE(contact) << contact.error().message;
  EXPECT_TRUE(client_.init({{"a", 1}}, Deadline::after(Milliseconds(10'000)), std::move(*contact)));
  EXPECT_EQ(requests_, 2);
}

TEST_F(GuestClientTest, ADaemonThatIsSilentToDatagramsIsAskedOverHttpInTheEnd) {
  take_datagrams(false);
  const auto patient = client_.greet(Milliseconds(100), true);
  ASSERT_FALSE(patient);
  EXPECT_EQ(patient.error().code, Code::kDeadlineExceeded);
  EXPECT_EQ(requests_, 0);
  ASSERT_TRUE(client_.greet(Milliseconds(100), false));
  EXPECT_EQ(requests_, 1);
  EXPECT_GE(greetings_, 2) << "it is asked again";
}

TEST_F(GuestClientTest, WhatDoesNotFitGoesOverHttp) {
  take_datagrams(true);
  auto contact = client_.greet(Milliseconds(10'000), true);
  ASSERT_TRUE(contact) << contact.error().message;
  const nlohmann::json large{{"envVars", {{"LARGE", std::string(100'000, 'x')}}}};
  EXPECT_TRUE(client_.init(large, Deadline::after(Milliseconds(10'000)), std::move(*contact)));
  EXPECT_EQ(requests_, 1);
}

}  // namespace
}  // namespace stasis::agent
