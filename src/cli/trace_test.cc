// trace: what it prints, and the picture.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <map>
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

size_t count(const std::string& text, const std::string& part) {
  size_t found = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
  return found;
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
    {"left_out", 7},
    {"spare", true}};

TEST(Trace, TellsPagesByTimeFaultsAndSources) {
  const Call call(always({.body = kTrace.dump()}), {"trace", "box"}, kTerminal);
  EXPECT_EQ(call.status, 0) << call.err;
  EXPECT_EQ(call.requests.at(0).target, "/v1/sandboxes/box/trace");
  EXPECT_THAT(call.out,
              HasSubstr("box: uffd (it was asked for), by a VMM that was started ahead; 67 of 65536 pages came\n"
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
  EXPECT_EQ(count(svg.str(), "#1f77b4"), 2U) << "prefetched: one in the legend, one in the picture";
  EXPECT_EQ(count(svg.str(), "#d62728"), 2U);
  EXPECT_EQ(count(svg.str(), "#aaaaaa"), 2U);
  EXPECT_EQ(count(svg.str(), "#2ca02c"), 0U) << "nothing was mapped";
  EXPECT_EQ(count(svg.str(), "prefetch: 64 pages"), 1U);
  EXPECT_EQ(count(svg.str(), "</svg>"), 1U);
}

TEST(Trace, EveryWayHasAColourOfItsOwn) {
  const std::map<std::string, std::string> colours{
      {"fault", "#d62728"},  {"around", "#ff9f40"}, {"prefetch", "#1f77b4"}, {"background", "#17becf"},
      {"mapped", "#2ca02c"}, {"copied", "#9467bd"}, {"zeros", "#aaaaaa"}};
  for (const auto& [way, its_own] : colours) {
    const bool zeros = way == "zeros";
    const std::string how = zeros ? "around" : way;
    const std::string svg = trace_svg({{"total_pages", 100},
                                       {"pages", json::array({{{"how", how}, {"zeros", zeros}, {"pages", 64}}})},
                                       {"events", json::array({event(100, 0, 64, how, zeros)})}});
    EXPECT_EQ(count(svg, way + ": 64 pages"), 1U);
    for (const auto& [other, colour] : colours) {
      EXPECT_EQ(count(svg, colour), other == way ? 2U : 0U) << other << " where all is " << way;
    }
  }
}

TEST(Trace, ThePictureBeginsInTheDecadeOfTheFirstArrivalAndFaultsLieAbove) {
  const json trace{{"total_pages", 100},
                   {"events",
                    {{{"how", "fault"}, {"when_us", 37'000}, {"offset", 0}, {"length", 4096}},
                     {{"how", "around"}, {"when_us", 37'010}, {"offset", 4096}, {"length", 4096}}}}};
  const std::string svg = trace_svg(trace);
  EXPECT_THAT(svg, AllOf(HasSubstr(">10 ms<"), Not(HasSubstr(">1.0 ms<"))));
  EXPECT_LT(svg.find("#ff9f40"), svg.find("#d62728"));
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
