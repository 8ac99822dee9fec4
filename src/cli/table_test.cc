#include "cli/table.h"

#include <gtest/gtest.h>

#include <sstream>

namespace stasis::cli {
namespace {

TEST(Table, AlignsColumnsAndShowsEmptyCellsAsADash) {
  Table table({{"ID"}, {"MEMORY", true}, {"REASON"}});
  table.add({"abc", "256 MiB", ""});
  table.add({"a-longer-id", "1 GiB", "vmm died"});
  std::ostringstream out;
  table.print(out);
  EXPECT_EQ(out.str(),
            "ID            MEMORY  REASON\n"
            "abc          256 MiB  -\n"
            "a-longer-id    1 GiB  vmm died\n");
}

TEST(Table, CountsCharactersNotBytes) {
  Table table({{"A"}, {"B"}});
  table.add({"\u00e9\u00e9\u00e9", "x"});
  table.add({"eee", "x"});
  std::ostringstream out;
  table.print(out);
  EXPECT_EQ(out.str(), "A    B\n\u00e9\u00e9\u00e9  x\neee  x\n");
}

TEST(Table, NoCellCanControlTheTerminal) {
  Table table({{"A"}});
  table.add({"\x1b[2J\r\nboo\x7f"});
  std::ostringstream out;
  table.print(out);
  EXPECT_EQ(out.str(), "A\n?[2J??boo?\n");
}

TEST(Printable, ReplacesControlsAndWhatIsNotUtf8) {
  EXPECT_EQ(printable("plain \u20ac \U0001F600"), "plain \u20ac \U0001F600");
  EXPECT_EQ(printable("\xc2\x9b[31m"), "?[31m");  // C1 control sequence introducer
  EXPECT_EQ(printable("\xff\xe2\x82"), "???");
  EXPECT_EQ(printable(std::string_view("a\0b", 3)), "a?b");
}

TEST(Sizes, UseTheLargestUnitThatFits) {
  EXPECT_EQ(size_text(0), "0 B");
  EXPECT_EQ(size_text(1023), "1023 B");
  EXPECT_EQ(size_text(1536), "1.5 KiB");
  EXPECT_EQ(size_text(uint64_t{256} << 20), "256 MiB");
  EXPECT_EQ(size_text(uint64_t{5} << 40), "5 TiB");
}

TEST(Durations, ReadWell) {
  EXPECT_EQ(duration_text(0.84), "0.8 ms");
  EXPECT_EQ(duration_text(35.4), "35 ms");
  EXPECT_EQ(duration_text(2140), "2.1 s");
  EXPECT_EQ(duration_text(600'000), "10 min");
}

TEST(Ages, ReadWellAndAreNeverNegative) {
  EXPECT_EQ(age_text(-5), "0 s");
  EXPECT_EQ(age_text(119), "119 s");
  EXPECT_EQ(age_text(600), "10 min");
  EXPECT_EQ(age_text(3 * 3600), "3 h");
  EXPECT_EQ(age_text(9 * 86'400), "9 d");
}

TEST(Rfc3339, ReadsTimesInUtc) {
  EXPECT_EQ(parse_rfc3339("1970-01-01T00:00:00Z"), 0);
  EXPECT_EQ(parse_rfc3339("2026-11-24T22:31:05.123456789Z"), 1'795'559'465);
  for (const char* bad : {"", "yesterday", "2026-11-24 22:31:05Z", "2026-13-24T22:31:05Z", "2026-11-24T22:31:05",
                          "2026-02-30T00:00:00Z"}) {
    EXPECT_FALSE(parse_rfc3339(bad)) << bad;
  }
}

}  // namespace
}  // namespace stasis::cli
