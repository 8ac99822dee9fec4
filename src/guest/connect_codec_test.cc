#include "guest/connect_codec.h"

#include <gtest/gtest.h>

#include "guest/fake_exchange.h"

namespace stasis::guest {
namespace {

using std::chrono::milliseconds;

TEST(Envelope, HasFlagLengthAndPayload) {
  EXPECT_EQ(envelope(0, "{}"), std::string("\0\0\0\0\2{}", 7));
  EXPECT_EQ(end_envelope(std::nullopt), std::string("\2\0\0\0\2{}", 7));
  std::string failed = end_envelope(Error{Code::kNotFound, "gone"});
  EXPECT_EQ(failed.substr(5), R"({"error":{"code":"not_found","message":"gone"}})");
}

TEST(EnvelopeReader, PutsMessagesTogetherFromAnyPieces) {
  for (size_t piece : {1U, 2U, 3U, 5U, 7U, 1000U}) {
    FakeExchange exchange;
    exchange.body = envelope(0, R"({"a":1})") + envelope(0, "{}") + envelope(0, R"({"b":"x"})");
    exchange.piece = piece;
    EnvelopeReader reader(exchange);
    EXPECT_EQ((**reader.next())["a"], 1);
    EXPECT_TRUE((**reader.next()).empty());
    EXPECT_EQ((**reader.next())["b"], "x");
    auto end = reader.next();
    ASSERT_TRUE(end);
    EXPECT_FALSE(*end);
  }
}

TEST(EnvelopeReader, EndsAtAnEndOfStreamEnvelope) {
  FakeExchange exchange;
  exchange.body = envelope(2, "{}") + envelope(0, "{}");
  auto message = EnvelopeReader(exchange).next();
  ASSERT_TRUE(message);
  EXPECT_FALSE(*message);
}

Code failure_of(const std::string& body) {
  FakeExchange exchange;
  exchange.body = body;
  auto message = EnvelopeReader(exchange).next();
  return message ? Code::kUnknown : message.error().code;
}

TEST(EnvelopeReader, RefusesDamagedInput) {
  EXPECT_EQ(failure_of(std::string("\0\0\0", 3)), Code::kInvalidArgument);
  EXPECT_EQ(failure_of(std::string("\0\0\0\0\5{}", 7)), Code::kInvalidArgument);
  EXPECT_EQ(failure_of(envelope(0, "[1]")), Code::kInvalidArgument);
  EXPECT_EQ(failure_of(envelope(1, "{}")), Code::kUnimplemented);
  EXPECT_EQ(failure_of(std::string("\0\xff\xff\xff\xff", 5)), Code::kResourceExhausted);
}

TEST(Timeout, IsMillisecondsOrNothing) {
  EXPECT_EQ(parse_timeout("1500").value(), milliseconds(1500));
  EXPECT_EQ(parse_timeout("").value(), std::nullopt);
  EXPECT_EQ(parse_timeout("0").value(), std::nullopt);
  EXPECT_FALSE(parse_timeout("-1"));
  EXPECT_FALSE(parse_timeout("12345678901"));
  EXPECT_FALSE(parse_timeout("soon"));
}

TEST(HttpStatus, FollowsTheProtocol) {
  EXPECT_EQ(http_status(Code::kNotFound), 404);
  EXPECT_EQ(http_status(Code::kAlreadyExists), 409);
  EXPECT_EQ(http_status(Code::kInvalidArgument), 400);
  EXPECT_EQ(http_status(Code::kUnauthenticated), 401);
  EXPECT_EQ(http_status(Code::kInternal), 500);
}

}  // namespace
}  // namespace stasis::guest
