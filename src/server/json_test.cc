#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/json_codec.h"
#include "server/json_reader.h"

namespace stasis::server {
namespace {

using ::testing::HasSubstr;

Status read_create(const Json& value) {
  const Json body = Json::parse(value.dump());  // numbers as they come from text
  JsonReader reader(body);
  (void)reader.text("name", 5);
  (void)reader.number("count", 10);
  (void)reader.text_map("map", 2, 10);
  (void)reader.text_list("list", 2);
  (void)reader.flag("flag");
  return reader.finish();
}

TEST(JsonTest, BrokenTextIsToldWithItsPosition) {
  const auto broken = parse_object("{\"a\": 1,,}");
  ASSERT_FALSE(broken);
  EXPECT_EQ(broken.error().code, Code::kInvalidArgument);
  EXPECT_THAT(broken.error().message, HasSubstr("byte 9"));
  for (const char* bad : {"[]", "1", "null", "{", "{\"a\":\"\xff\"}", "{} x"}) EXPECT_FALSE(parse_object(bad)) << bad;
  EXPECT_FALSE(parse_object(std::string(100'000, '[')));
  EXPECT_TRUE(parse_object(""));
}

TEST(JsonTest, FieldsHaveOneType) {
  EXPECT_TRUE(read_create({{"name", "abc"}, {"count", 10}, {"map", {{"a", "b"}}}, {"list", {"x"}}, {"flag", true}}));
  EXPECT_TRUE(read_create({{"name", nullptr}}));
  const std::vector<Json> bad = {{{"name", 1}},
                                 {{"name", "abcdef"}},
                                 {{"count", -1}},
                                 {{"count", 11}},
                                 {{"count", 1.5}},
                                 {{"count", "1"}},
                                 {{"map", {{"a", 1}}}},
                                 {{"map", {"a", "b", "c"}}},
                                 {{"list", {"a", "b", "c"}}},
                                 {{"list", {1}}},
                                 {{"flag", 1}}};
  for (const Json& body : bad) EXPECT_FALSE(read_create(body)) << body;
}

TEST(JsonTest, AnUnknownFieldIsNamed) {
  const Status done = read_create({{"nmae", "abc"}});
  ASSERT_FALSE(done);
  EXPECT_THAT(done.error().message, HasSubstr("'nmae'"));
}

TEST(JsonTest, Utf8IsWhatTheStandardSays) {
  for (const char* good : {"", "abc", "\xc3\xa4", "\xe2\x82\xac", "\xf0\x9f\x98\x80"})
    EXPECT_TRUE(is_utf8(good)) << good;
  for (const char* bad :
       {"\xff", "\xc3", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe0\x80\x80", "a\x80", "\xf0\x9f\x98"}) {
    EXPECT_FALSE(is_utf8(bad));
  }
  EXPECT_TRUE(is_utf8(std::string_view("a\0b", 3)));
}

}  // namespace
}  // namespace stasis::server
