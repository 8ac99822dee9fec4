#include "base/greeting.h"

#include <gtest/gtest.h>

namespace stasis {
namespace {

constexpr GreetingNonce kNonce{'1', '2', '\0', '4', '5', '6', '7', '8'};

TEST(Greeting, AQuestionComesAsItWasAsked) {
  const std::string datagram = encode(GreetingQuestion{kNonce, GreetingQuestion::What::kInit, R"({"a":1})"});
  EXPECT_EQ(datagram, std::string("SGQ112\00045678\x01{\"a\":1}", 20));
  const auto question = decode_question(datagram);
  ASSERT_TRUE(question);
  EXPECT_EQ(question->nonce, kNonce);
  EXPECT_EQ(question->what, GreetingQuestion::What::kInit);
  EXPECT_EQ(question->body, R"({"a":1})");
}

TEST(Greeting, AnAnswerComesAsItWasGiven) {
  const std::string datagram = encode(GreetingAnswer{kNonce, 401, "no"});
  const auto answer = decode_answer(datagram);
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->nonce, kNonce);
  EXPECT_EQ(answer->status, 401);
  EXPECT_EQ(answer->body, "no");
}

TEST(Greeting, WhatIsCutOffOrForeignIsNone) {
  const std::string question = encode(GreetingQuestion{kNonce, GreetingQuestion::What::kAreYouThere, {}});
  const std::string answer = encode(GreetingAnswer{kNonce, 204, {}});
  for (size_t length = 0; length < question.size(); ++length) EXPECT_FALSE(decode_question(question.substr(0, length)));
  for (size_t length = 0; length < answer.size(); ++length) EXPECT_FALSE(decode_answer(answer.substr(0, length)));
  EXPECT_FALSE(decode_question(answer));
  EXPECT_FALSE(decode_answer(question));
  std::string unknown = question;
  unknown.back() = 2;
  EXPECT_FALSE(decode_question(unknown));
  EXPECT_FALSE(decode_question(question + std::string(kMaxGreetingBytes, 'x')));
}

TEST(Greeting, AllThatFitsIsOneDatagram) {
  const std::string body(kMaxQuestionBody, 'b');
  const std::string question = encode(GreetingQuestion{kNonce, GreetingQuestion::What::kInit, body});
  EXPECT_EQ(question.size(), kMaxGreetingBytes);
  EXPECT_EQ(decode_question(question)->body, body);
  const std::string answer = encode(GreetingAnswer{kNonce, 500, std::string(kMaxGreetingBytes, 't')});
  EXPECT_EQ(answer.size(), kMaxGreetingBytes);
  EXPECT_TRUE(decode_answer(answer));
}

}  // namespace
}  // namespace stasis
