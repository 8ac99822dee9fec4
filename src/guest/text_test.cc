#include "guest/text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace stasis::guest {
namespace {

using testing::ElementsAre;
using testing::Pair;

TEST(Query, SplitsInOrderAndDropsMalformedPairs) {
  EXPECT_THAT(parse_query("path=%2Fx&username=&&flag&=nameless&bad=%q"),
              ElementsAre(Pair("path", "/x"), Pair("username", ""), Pair("flag", "")));
}

TEST(Base64, KnownVectorsBothWays) {
  const std::vector<std::pair<std::string, std::string>> vectors = {{"", ""},
                                                                    {"f", "Zg=="},
                                                                    {"fo", "Zm8="},
                                                                    {"foo", "Zm9v"},
                                                                    {"foob", "Zm9vYg=="},
                                                                    {"fooba", "Zm9vYmE="},
                                                                    {"foobar", "Zm9vYmFy"},
                                                                    {std::string("\x00\xff\xfe", 3), "AP/+"}};
  for (const auto& [plain, encoded] : vectors) {
    EXPECT_EQ(base64_encode(plain), encoded);
    EXPECT_EQ(base64_decode(encoded), plain);
  }
}

TEST(Base64, AcceptsUrlAlphabetAndMissingPaddingOnly) {
  EXPECT_EQ(base64_decode("AP_-"), std::string("\x00\xff\xfe", 3));
  EXPECT_EQ(base64_decode("Zg"), "f");
  EXPECT_EQ(base64_decode("Z"), std::nullopt);
  EXPECT_EQ(base64_decode("Zm 9v"), std::nullopt);
}

std::string hex(const std::array<uint8_t, 32>& digest) {
  std::string out;
  char pair[3];
  for (uint8_t byte : digest) {
    std::snprintf(pair, sizeof(pair), "%02x", byte);
    out += pair;
  }
  return out;
}

TEST(Sha256, FipsVectors) {
  EXPECT_EQ(hex(sha256("")), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(hex(sha256("abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(hex(sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(hex(sha256(std::string(1'000'000, 'a'))),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Rfc3339, ParsesNanosecondsAndOffsets) {
  EXPECT_EQ(parse_rfc3339("1970-01-01T00:00:00Z"), 0);
  EXPECT_EQ(parse_rfc3339("2026-11-24T22:31:05.123456789Z"), 1795559465123456789);
  EXPECT_EQ(parse_rfc3339("2026-11-24T23:31:05.1234567891+01:00"), 1795559465123456789);
  EXPECT_EQ(parse_rfc3339("2026-11-24T21:01:05.5-01:30"), 1795559465500000000);
}

TEST(Rfc3339, RejectsWhatIsNotAnInstant) {
  for (const char* text :
       {"", "2026-11-24", "2026-11-24T22:31:05", "2026-11-24T22:31:05.Z", "2026-13-24T22:31:05Z",
        "2026-11-24T22:31:05Zx", "2026-11-24 22:31:05Z", "26-11-24T22:31:05Z", "2026-11-24T25:31:05Z"}) {
    EXPECT_EQ(parse_rfc3339(text), std::nullopt) << text;
  }
}

TEST(Number, WholeDecimalOnly) {
  EXPECT_EQ(parse_number("18446744073709551615"), UINT64_MAX);
  for (const char* text : {"", "18446744073709551616", "-1", "+1", "1 ", "0x1"})
    EXPECT_EQ(parse_number(text), std::nullopt) << text;
}

TEST(Secrets, Compare) {
  EXPECT_TRUE(equal_secrets("abc", "abc"));
  EXPECT_FALSE(equal_secrets("abc", "abd"));
  EXPECT_FALSE(equal_secrets("abc", "ab"));
  EXPECT_FALSE(equal_secrets("", "a"));
}

TEST(Json, BytesThatAreNotUtf8DoNotThrow) {
  EXPECT_EQ(to_text(nlohmann::json{{"a", "x\xff"}}), "{\"a\":\"x\xEF\xBF\xBD\"}");
  EXPECT_FALSE(parse_object("[1]"));
  EXPECT_FALSE(parse_object("{"));
  EXPECT_TRUE(parse_object("{}"));
}

}  // namespace
}  // namespace stasis::guest
