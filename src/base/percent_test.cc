#include "base/percent.h"

#include <gtest/gtest.h>

namespace stasis {
namespace {

TEST(Percent, DecodesWhatIsWellFormed) {
  EXPECT_EQ(percent_decode("/a%20b%2Fc", false), "/a b/c");
  EXPECT_EQ(percent_decode("%c3%A4", false), "\xc3\xa4");
  EXPECT_EQ(percent_decode("a+b", false), "a+b");
  EXPECT_EQ(percent_decode("a+b", true), "a b");
  EXPECT_EQ(percent_decode("%41", false), "A") << "the two digits may be the last";
  EXPECT_EQ(percent_decode("%00", false), std::string(1, '\0'));
}

TEST(Percent, RefusesAPercentSignThatStandsAlone) {
  for (const std::string text : {"%", "%4", "%zz", "%4g", "a%", "%%41"}) {
    const auto decoded = percent_decode(text, true);
    ASSERT_FALSE(decoded.has_value()) << text;
    EXPECT_EQ(decoded.error().code, Code::kInvalidArgument);
  }
}

TEST(Percent, WhatWasEncodedDecodesToTheSame) {
  std::string every;
  for (int byte = 0; byte < 256; ++byte) every += static_cast<char>(byte);
  EXPECT_EQ(percent_decode(percent_encode(every), true), every);
  EXPECT_EQ(percent_encode("a/b c~+\xe4"), "a%2Fb%20c~%2B%E4");
  EXPECT_EQ(percent_encode("a/b c", "/"), "a/b%20c");
}

}  // namespace
}  // namespace stasis
