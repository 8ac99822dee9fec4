// trace: what it prints, and the picture.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "base/testing/temp_dir.h"
#include "cli/testing/call.h"
#include "cli/trace_view.h"

namespace stasis::cli {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

json event(int when_us, uint64_t block, uint64_t blocks, const std::string& how, bool zeros) {
  return {{"when_us", when_us}, {"offset", block * 4096}, {"length", blocks * 4096}, {"how", how}, {"zeros", zeros}};
}

const json kTrace = {
    {"sandbox_id", "box"},
    {"method", "uffd"},
    {"reason", "it was asked for"},
    {"total_pages", 65'536},
    {"faults", {{{"kind", "write"}, {"cause", "removed"}, {"outcome", "zeroed"}, {"count", 3}}}},
    {"fault_times", {0, 0, 0, 2, 0, 1}},
    {"fault_total_us", 36.0},
    {"pages",
     {{{"how", "prefetch"}, {"zeros", false}, {"pages", 64}},
      {{"how", "fault"}, {"zeros", false}, {"pages", 1}},
      {{"how", "around"}, {"zeros", true}, {"pages", 2}}}},
    {"sources", {{{"layer_id", nullptr}, {"bytes", 8192}}, {{"layer_id", "layer-id"}, {"bytes", 266'240}}}},
    {"events",
     {event(120, 0, 64, "prefetch", false), event(900, 100, 1, "fault", false), event(5000, 102, 2, "around", true)}},
    {"load", {{"state", "ended"}, {"complete", false}, {"left_bytes", 4096}, {"error", "a frame is damaged"}}},
    {"left_out", 7}};

TEST(Trace, TellsPagesByTimeFaultsAndSources) {
  const Call call(always({.body = kTrace.dump()}), {"trace", "box"}, kTerminal);
  EXPECT_EQ(call.status, 0) << call.err;
  EXPECT_EQ(call.requests.at(0).target, "/v1/sandboxes/box/trace");
  EXPECT_THAT(call.out, HasSubstr("box: uffd (it was asked for); 67 of 65536 pages came\n"
                                  "background loading: ended, 4 KiB left: a frame is damaged\n"
                                  "3 faults, 12 us each:  2 under 8 us  1 over 16 us\n"));
  EXPECT_THAT(call.out, HasSubstr("3  write  removed   zeroed"));
  std::istringstream lines(call.out);
  std::vector<std::string> slices;
  for (std::string line; std::getline(lines, line);) {
    if (line.find(" ms ") != std::string::npos) slices.push_back(line);
  }
  ASSERT_EQ(slices.size(), 2U) << call.out;
  EXPECT_THAT(slices[0], AllOf(HasSubstr("1.0 ms"), HasSubstr("64")));
  EXPECT_THAT(slices[1], AllOf(HasSubstr("8.0 ms"), HasSubstr("2")));
  EXPECT_THAT(call.out, AllOf(HasSubstr("(7 arrivals in the middle were not kept)"), HasSubstr("layer layer-id"),
                              HasSubstr("260 KiB"), HasSubstr("zeros")));
}

TEST(Trace, IsTheServersAnswerWhenPiped) {
  const Call call(always({.body = kTrace.dump()}), {"trace", "box"});
  EXPECT_EQ(json::parse(call.out), kTrace);
}

TEST(Trace, OfABootedSandboxThereIsNothingToTell) {
  json booted = kTrace;
  booted["method"] = nullptr;
  EXPECT_EQ(Call(always({.body = booted.dump()}), {"trace", "box"}, kTerminal).out,
            "box was booted: no memory of it had to come back\n");
}

TEST(Trace, ThePictureHasEveryArrivalInTheColourOfItsWay) {
  const stasis::testing::TempDir dir;
  const std::string file = dir.path() / "t.svg";
  const Call call(always({.body = kTrace.dump()}), {"trace", "box", "--svg", file}, kTerminal);
  EXPECT_EQ(call.status, 0) << call.err;
  std::stringstream svg;
  svg << std::ifstream(file).rdbuf();
  const auto count = [text = svg.str()](const std::string& part) {
    size_t found = 0;
    for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
    return found;
  };
  EXPECT_EQ(count("#1f77b4"), 2U) << "prefetched: one in the legend, one in the picture";
  EXPECT_EQ(count("#d62728"), 2U);
  EXPECT_EQ(count("#aaaaaa"), 2U);
  EXPECT_EQ(count("#2ca02c"), 0U) << "nothing was mapped";
  EXPECT_EQ(count("prefetch: 64 pages"), 1U);
  EXPECT_EQ(count("</svg>"), 1U);
}

TEST(Trace, AnAnswerThatIsNoTraceBreaksNothing) {
  for (const json& odd :
       {json::object(), json{{"events", {1, {{"when_us", "x"}}}}, {"pages", 3}, {"method", "uffd"}}}) {
    std::ostringstream out;
    print_trace(out, odd);
    EXPECT_THAT(trace_svg(odd), AllOf(HasSubstr("</svg>"), Not(HasSubstr("nan")), Not(HasSubstr("inf"))));
  }
}

}  // namespace
}  // namespace stasis::cli
