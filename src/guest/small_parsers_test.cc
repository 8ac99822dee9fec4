// Range headers, the kernel command line, the fields of JSON requests, gzip.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "guest/entry_info.h"
#include "guest/gzip.h"
#include "guest/json_fields.h"
#include "guest/kernel_cmdline.h"
#include "guest/range_header.h"

namespace stasis::guest {
namespace {

using testing::ElementsAre;
using testing::Pair;

void expect_part(std::string_view header, uint64_t offset, uint64_t length) {
  RangeAnswer answer = apply_range(header, 100);
  EXPECT_EQ(answer.kind, RangeKind::kPart) << header;
  EXPECT_EQ(answer.range.offset, offset) << header;
  EXPECT_EQ(answer.range.length, length) << header;
}

TEST(RangeHeader, OneRange) {
  expect_part("bytes=0-0", 0, 1);
  expect_part("bytes=10-19", 10, 10);
  expect_part("bytes=90-1000", 90, 10);
  expect_part("bytes=90-", 90, 10);
  expect_part("bytes=-5", 95, 5);
  expect_part("bytes=-500", 0, 100);
}

TEST(RangeHeader, OtherFormsAreIgnoredOrRefused) {
  for (const char* header : {"", "lines=1-2", "bytes=", "bytes=a-b", "bytes=5-2", "bytes=1-2,4-5", "bytes=-"}) {
    EXPECT_EQ(apply_range(header, 100).kind, RangeKind::kWhole) << header;
    EXPECT_EQ(apply_range(header, 100).range.length, 100U) << header;
  }
  for (const char* header : {"bytes=100-", "bytes=100-200", "bytes=-0"}) {
    EXPECT_EQ(apply_range(header, 100).kind, RangeKind::kUnsatisfiable) << header;
  }
  EXPECT_EQ(apply_range("bytes=-1", 0).kind, RangeKind::kUnsatisfiable);
}

TEST(KernelCmdline, WordsAndAddresses) {
  EXPECT_THAT(parse_cmdline("quiet root=/dev/vda  stasis.ip=172.30.0.2/30 =x stasis.ip=10.0.0.1/8\n"),
              ElementsAre(Pair("root", "/dev/vda"), Pair("stasis.ip", "10.0.0.1/8")));
  auto cidr = parse_cidr("172.30.0.2/30");
  ASSERT_TRUE(cidr);
  EXPECT_EQ(ntohl(cidr->address.s_addr), 0xAC1E0002U);
  EXPECT_EQ(ntohl(cidr->mask.s_addr), 0xFFFFFFFCU);
  EXPECT_EQ(ntohl(parse_cidr("1.2.3.4/32")->mask.s_addr), 0xFFFFFFFFU);
  for (const char* text : {"", "1.2.3.4", "1.2.3.4/", "1.2.3.4/0", "1.2.3.4/33", "1.2.3/8", "x/8"})
    EXPECT_FALSE(parse_cidr(text)) << text;
}

TEST(JsonFields, DefaultsAndTypes) {
  auto object = nlohmann::json::parse(
      R"({"text":"a","nothing":null,"flag":true,"number":7,"int64":"8","map":{"k":"v"},"list":["x"],"bad":[1],"badmap":{"k":1}})");
  EXPECT_EQ(string_field(object, "text"), "a");
  EXPECT_EQ(string_field(object, "nothing"), "");
  EXPECT_EQ(string_field(object, "absent"), "");
  EXPECT_FALSE(string_field(object, "number"));
  EXPECT_EQ(bool_field(object, "flag", false), true);
  EXPECT_EQ(bool_field(object, "absent", true), true);
  EXPECT_FALSE(bool_field(object, "text", true));
  EXPECT_EQ(number_field(object, "number", 1), 7U);
  EXPECT_EQ(number_field(object, "int64", 1), 8U);
  EXPECT_FALSE(number_field(object, "text", 1));
  EXPECT_EQ(map_field(object, "map")->at("k"), "v");
  EXPECT_FALSE(map_field(object, "badmap"));
  EXPECT_FALSE(map_field(object, "list"));
  EXPECT_THAT(*list_field(object, "list"), ElementsAre("x"));
  EXPECT_FALSE(list_field(object, "bad"));
}

TEST(Permissions, AreWrittenAsLsDoes) {
  EXPECT_EQ(permissions_text(0100644), "-rw-r--r--");
  EXPECT_EQ(permissions_text(040755), "drwxr-xr-x");
}

TEST(Gzip, GoesBothWaysInPieces) {
  std::string data;
  for (int i = 0; i < 200'000; ++i) data += std::to_string(i * 7919);
  GzipEncoder encoder;
  std::string packed = encoder.encode(std::string_view(data).substr(0, 1000), false);
  packed += encoder.encode(std::string_view(data).substr(1000), false);
  packed += encoder.encode("", true);
  EXPECT_LT(packed.size(), data.size());
  std::string out;
  GzipDecoder decoder;
  auto keep = [&](std::string_view part) {
    out.append(part);
    return Status();
  };
  for (size_t at = 0; at < packed.size(); at += 777)
    ASSERT_TRUE(decoder.decode(std::string_view(packed).substr(at, 777), keep));
  EXPECT_TRUE(decoder.finish());
  EXPECT_EQ(out, data);
}

TEST(Gzip, DamagedAndShortInputAreErrors) {
  GzipDecoder decoder;
  auto drop = [](std::string_view) { return Status(); };
  EXPECT_FALSE(decoder.decode("this is not gzip at all", drop));
  GzipEncoder encoder;
  std::string packed = encoder.encode("hello", true);
  GzipDecoder shortened;
  EXPECT_TRUE(shortened.decode(std::string_view(packed).substr(0, packed.size() - 4), drop));
  EXPECT_FALSE(shortened.finish());
}

}  // namespace
}  // namespace stasis::guest
