#include "guest/greeter.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>

#include "guest/socket.h"

namespace stasis::guest {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using What = GreetingQuestion::What;

class GreeterTest : public testing::Test {
 protected:
  GreeterTest() {
    UniqueFd socket = take_datagrams_on("127.0.0.1", 0);
    port_ = bound_port(socket.get());
    greeter_ = std::make_unique<Greeter>(std::move(socket), [this](std::string_view body) {
      inits_.emplace_back(body);
      return answer_;
    });
    greeter_->start();
    asker_ = connected();
  }

  UniqueFd connected() const {
    UniqueFd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(port_);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(fd.get(), reinterpret_cast<sockaddr*>(&to), sizeof to), 0);
    return fd;
  }
  void send(std::string_view datagram) const {
    EXPECT_EQ(::send(asker_.get(), datagram.data(), datagram.size(), 0), static_cast<ssize_t>(datagram.size()));
  }
  // The next answer; none within `ms`.
  std::optional<std::pair<int, std::string>> receive(GreetingNonce nonce, int ms = 10'000) const {
    pollfd entry{asker_.get(), POLLIN, 0};
    if (::poll(&entry, 1, ms) != 1) return std::nullopt;
    std::array<char, 2048> buffer{};
    const ssize_t count = ::recv(asker_.get(), buffer.data(), buffer.size(), 0);
    if (count < 0) return std::nullopt;
    const auto answer = decode_answer({buffer.data(), static_cast<size_t>(count)});
    if (!answer) return std::nullopt;
    EXPECT_EQ(answer->nonce, nonce);
    return std::pair(int{answer->status}, std::string(answer->body));
  }
  std::pair<int, std::string> ask(GreetingNonce nonce, What what, std::string_view body = {}) const {
    send(encode(GreetingQuestion{nonce, what, body}));
    return receive(nonce).value_or(std::pair(-1, ""));
  }

  std::vector<std::string> inits_;
  InitAnswer answer_;
  uint16_t port_ = 0;
  std::unique_ptr<Greeter> greeter_;
  UniqueFd asker_;
};

TEST_F(GreeterTest, SaysThatItIsThere) {
  EXPECT_EQ(ask({'a'}, What::kAreYouThere), std::pair(204, std::string()));
  EXPECT_THAT(inits_, IsEmpty());
}

TEST_F(GreeterTest, TakesAnInit) {
  EXPECT_EQ(ask({'a'}, What::kInit, R"({"timestamp":""})"), std::pair(204, std::string()));
  EXPECT_THAT(inits_, ElementsAre(R"({"timestamp":""})"));
}

TEST_F(GreeterTest, SaysWhatIsWrongWithAnInit) {
  answer_ = {401, "the access token is set already"};
  EXPECT_EQ(ask({'a'}, What::kInit, "{}"), std::pair(401, std::string("the access token is set already")));
}

// Who asks does not know whether the question or its answer was lost. A second /init would end the streams that were
// begun after the first.
TEST_F(GreeterTest, DoesOnceWhatIsAskedTwice) {
  answer_ = {401, "no"};
  EXPECT_EQ(ask({'a'}, What::kInit, "1").first, 401);
  answer_ = {};
  EXPECT_EQ(ask({'a'}, What::kInit, "1"), std::pair(401, std::string("no")));
  EXPECT_EQ(ask({'a'}, What::kAreYouThere).first, 204);
  EXPECT_EQ(ask({'a'}, What::kInit, "1").first, 401);
  EXPECT_EQ(ask({'b'}, What::kInit, "2").first, 204);
  EXPECT_THAT(inits_, ElementsAre("1", "2"));
}

TEST_F(GreeterTest, SaysNothingToWhatIsNoQuestion) {
  send("");
  send("GET /health HTTP/1.1\r\n\r\n");
  send(std::string(20'000, 'x'));
  send(encode(GreetingAnswer{{'a'}, 204, {}}));
  EXPECT_EQ(receive({}, 50), std::nullopt);
  EXPECT_EQ(ask({'a'}, What::kAreYouThere).first, 204);
}

TEST_F(GreeterTest, AsksOfManyAreAnsweredToEach) {
  std::vector<UniqueFd> askers;
  for (char i = 0; i < 20; ++i) {
    askers.push_back(std::move(asker_));
    asker_ = connected();
    send(encode(GreetingQuestion{{i}, What::kAreYouThere, {}}));
  }
  EXPECT_EQ(receive({19})->first, 204);
  for (char i = 18; i >= 0; --i) {
    asker_ = std::move(askers.back());
    askers.pop_back();
    EXPECT_EQ(receive({i})->first, 204);
  }
}

TEST_F(GreeterTest, StopEndsItAndNobodyAnswers) {
  greeter_->stop();
  greeter_.reset();
  EXPECT_EQ(::send(asker_.get(), "x", 1, 0), 1);
  pollfd entry{asker_.get(), POLLIN, 0};
  EXPECT_EQ(::poll(&entry, 1, 10'000), 1);
  char byte = 0;
  EXPECT_EQ(::recv(asker_.get(), &byte, 1, 0), -1);
  EXPECT_EQ(errno, ECONNREFUSED);
}

}  // namespace
}  // namespace stasis::guest
