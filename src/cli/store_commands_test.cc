// The commands about the store: verify, df, gc, inspect, tree, diff, retention; and the pictures.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "base/testing/temp_dir.h"
#include "cli/snapshot_tree.h"
#include "cli/span_of_time.h"
#include "cli/svg.h"
#include "cli/testing/call.h"

namespace stasis::cli {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;

const json kProgress = {{"type", "progress"}, {"bytes", 50}, {"total_bytes", 100}};
const json kDamage = {{"type", "damage"},
                      {"file", "/store/layers/x.raw"},
                      {"frame", 3},
                      {"message", "frame 3 is damaged"},
                      {"snapshots",
                       {{{"snapshot_id", "id-1"}, {"names", {"warm"}}, {"sandboxes", {"box"}}},
                        {{"snapshot_id", "id-2"}, {"names", json::array()}, {"sandboxes", json::array()}}}}};

json done(int damages) {
  return {{"type", "done"}, {"snapshots", 2}, {"layers", 3}, {"frames", 4}, {"bytes", 262'144}, {"damages", damages}};
}

std::string lines(const std::vector<json>& documents) {
  std::string text;
  for (const json& document : documents) text += document.dump() + "\n";
  return text;
}

TEST(Verify, WholeIsZero) {
  const Call call(always({.body = lines({kProgress, done(0)})}), {"snapshot", "verify", "warm"}, kTerminal);
  EXPECT_EQ(call.status, 0) << call.err;
  EXPECT_EQ(call.requests.at(0).method, "POST");
  EXPECT_EQ(call.requests.at(0).target, "/v1/snapshots/warm/verify");
  EXPECT_EQ(call.out, "2 snapshots, 3 layers, 4 frames, 256 KiB: all whole\n");
}

TEST(Verify, DamageIsNamedAndIsOne) {
  const auto damaged = always({.body = lines({kProgress, kDamage, done(1)})});
  const Call call(damaged, {"snapshot", "verify", "--all"}, kTerminal);
  EXPECT_EQ(call.status, 1);
  EXPECT_EQ(call.requests.at(0).target, "/v1/store/verify");
  EXPECT_THAT(call.out, AllOf(HasSubstr("damaged: /store/layers/x.raw, frame 3"),
                              HasSubstr("needed by: warm, paused sandbox box, snapshot id-2"), HasSubstr("1 damaged")));
  const Call piped(damaged, {"snapshot", "verify", "--all"});
  EXPECT_EQ(piped.status, 1);
  const json document = json::parse(piped.out);
  EXPECT_EQ(document["damages"], 1);
  EXPECT_EQ(document["damage"][0]["frame"], 3);
  EXPECT_EQ(document["damage"][0]["snapshots"], kDamage["snapshots"]);
}

TEST(Verify, WhatDoesNotEndIsNoSuccess) {
  const json error = {{"type", "error"}, {"error", {{"code", "internal"}, {"message", "gone"}, {"remedy", ""}}}};
  const Call failed(always({.body = lines({kProgress, error})}), {"snapshot", "verify", "warm"});
  EXPECT_EQ(failed.status, 1);
  EXPECT_EQ(json::parse(failed.err)["error"]["message"], "gone");
  EXPECT_EQ(Call(always({.body = lines({kProgress})}), {"snapshot", "verify", "warm"}).status, 1);
  EXPECT_EQ(Call(always({.body = lines({done(0)}), .cut_short = true}), {"snapshot", "verify", "warm"}).status, 1);
  EXPECT_EQ(Call(always({.body = "nonsense\n"}), {"snapshot", "verify", "warm"}).status, 1);
  EXPECT_EQ(Call(always(error_reply(404, "not_found")), {"snapshot", "verify", "warm"}).status, 1);
  EXPECT_EQ(Call(always({}), {"snapshot", "verify"}).status, 2);
  EXPECT_EQ(Call(always({}), {"snapshot", "verify", "--all", "warm"}).status, 2);
}

json holder(const std::string& id, const std::string& parent, const std::string& name, const std::string& created) {
  return {{"kind", parent.empty() ? "image" : "snapshot"},
          {"id", id},
          {"names", name.empty() ? json::array() : json{name}},
          {"sandboxes", json::array()},
          {"parent_id", parent.empty() ? json() : json(parent)},
          {"created_at", created},
          {"own_bytes", 1024},
          {"shared_bytes", 2048},
          {"damage", nullptr}};
}

json usage() {
  json holders = {holder("id-0", "", "base", "2026-01-01"), holder("id-2", "id-0", "second", "2026-01-03"),
                  holder("id-1", "id-0", "first", "2026-01-02"), holder("id-3", "id-1", "", "2026-01-04"),
                  holder("id-5", "id-4", "orphan", "2026-01-05")};
  holders.push_back({{"kind", "sandbox"}, {"id", "box"}, {"own_bytes", 0}, {"shared_bytes", 2048}});
  return {{"holders", holders}, {"layers", 7}, {"total_bytes", 1 << 20}, {"reclaimable_bytes", nullptr}};
}

TEST(StoreDf, ATableWithTheTotal) {
  json answer = usage();
  const Call unknown(always({.body = answer.dump()}), {"store", "df"}, kTerminal);
  EXPECT_EQ(unknown.status, 0) << unknown.err;
  EXPECT_EQ(unknown.requests.at(0).target, "/v1/store/usage");
  EXPECT_THAT(unknown.out, AllOf(HasSubstr("sandbox"), HasSubstr("first"), HasSubstr("total 1 MiB in 7 layers"),
                                 HasSubstr("not known now")));
  answer["reclaimable_bytes"] = 4096;
  EXPECT_THAT(Call(always({.body = answer.dump()}), {"store", "df"}, kTerminal).out, HasSubstr("reclaimable 4 KiB"));
  EXPECT_EQ(json::parse(Call(always({.body = answer.dump()}), {"store", "df"}).out), answer);
}

TEST(StoreDf, WhatTheHostsOwnVerificationHasFound) {
  json answer = usage();
  const auto shown = [&](const json& scrub) {
    answer["scrub"] = scrub;
    return Call(always({.body = answer.dump()}), {"store", "df"}, kTerminal).out;
  };
  EXPECT_THAT(shown({{"started_at", nullptr}, {"damaged", json::array()}}), HasSubstr("scrub: not begun yet\n"));
  json scrub = {{"started_at", "2026-11-01T00:00:00Z"},
                {"finished_at", "2026-11-02T00:00:00Z"},
                {"under_way", false},
                {"checked_bytes", 1 << 20},
                {"damaged", json::array()}};
  EXPECT_THAT(shown(scrub), HasSubstr("scrub: ended 2026-11-02T00:00:00Z, 1 MiB checked, nothing damaged\n"));
  scrub["under_way"] = true;
  scrub["damaged"] = {"/store/layers/x.raw"};
  EXPECT_THAT(shown(scrub), AllOf(HasSubstr("under way since 2026-11-01"), HasSubstr("1 damaged"),
                                  HasSubstr("\n  /store/layers/x.raw\n")));
}

TEST(StoreGc, SaysWhatWasAsked) {
  const auto answer = always({.body = json{
                                  {"dry_run", true},
                                  {"removed", {{{"file", "layers/x.raw"}, {"bytes", 4096}}}},
                                  {"count", 1},
                                  {"bytes", 4096},
                                  {"kept_young",
                                   2}}.dump()});
  const Call call(answer, {"store", "gc", "--dry-run", "--grace", "2h"}, kTerminal);
  EXPECT_EQ(call.status, 0) << call.err;
  EXPECT_EQ(json::parse(call.requests.at(0).body), (json{{"dry_run", true}, {"grace_sec", 7200}}));
  EXPECT_THAT(call.out, AllOf(HasSubstr("layers/x.raw"), HasSubstr("would remove 1 files, 4 KiB; 2 too young")));
  EXPECT_EQ(json::parse(Call(answer, {"store", "gc"}).requests.at(0).body), (json{{"dry_run", false}}));
  EXPECT_EQ(Call(answer, {"store", "gc", "--grace", "soon"}).status, 2);
}

TEST(SpanOfTime, Units) {
  EXPECT_EQ(parse_span_of_time("90"), 90U);
  EXPECT_EQ(parse_span_of_time("90s"), 90U);
  EXPECT_EQ(parse_span_of_time("15m"), 900U);
  EXPECT_EQ(parse_span_of_time("2h"), 7200U);
  EXPECT_EQ(parse_span_of_time("7d"), 604'800U);
  for (const char* bad : {"", "d", "-1d", "1w", "1 d", "1.5h", "4294967296", "99999999d"}) {
    EXPECT_FALSE(parse_span_of_time(bad)) << bad;
  }
}

TEST(Tree, ParentsBeforeChildrenSiblingsByAge) {
  const auto tree = tree_lines(usage());
  std::vector<std::string> labels;
  labels.reserve(tree.size());
  for (const TreeLine& line : tree) labels.push_back(line.branch + line.label);
  EXPECT_THAT(labels, ::testing::ElementsAre("base", "├─ first", "│  └─ id-3", "└─ second", "id-4", "└─ orphan"));
  EXPECT_FALSE(tree[4].exists);
  EXPECT_EQ(tree[4].note, "deleted");
}

TEST(Tree, ACircleIsShownOnce) {
  const json circle = {{"holders", {holder("a", "b", "", "1"), holder("b", "a", "", "2"), holder("c", "c", "", "3")}}};
  EXPECT_THAT(tree_lines(circle), SizeIs(3));
}

TEST(Tree, OnATerminalAndAsAPicture) {
  const stasis::testing::TempDir directory;
  const std::string file = (directory.path() / "tree.svg").string();
  const Call call(always({.body = usage().dump()}), {"snapshot", "tree", "--svg", file}, kTerminal);
  EXPECT_EQ(call.status, 0) << call.err;
  EXPECT_THAT(call.out, HasSubstr("│  └─ id-3  (snapshot, own 1 KiB, shared 2 KiB)\n"));
  std::ostringstream svg;
  svg << std::ifstream(file).rdbuf();
  EXPECT_THAT(svg.str(), AllOf(HasSubstr("<svg "), HasSubstr(">first"), HasSubstr("</svg>")));
}

json stats() {
  return {{"snapshot_id", "id-1"},
          {"names", {"warm"}},
          {"kind", "snapshot"},
          {"own_bytes", 4096},
          {"shared_bytes", 8192},
          {"spaces",
           {{{"name", "memory"},
             {"size", 1 << 20},
             {"generation", 1},
             {"extents", 3},
             {"data_bytes", 12288},
             {"zero_bytes", 4096},
             {"fragmentation", 0.25},
             {"layers",
              {{{"layer_id", "<l0>"},
                {"generation", 0},
                {"mapped_bytes", 8192},
                {"form", "zstd"},
                {"shared", true},
                {"verified", true}},
               {{"layer_id", "l1"}, {"generation", 1}, {"mapped_bytes", 4096}, {"shared", false}}}},
             {"cells", {1, 1, 2, 0, 99}}}}}};
}

TEST(Inspect, TablesAndOneDocument) {
  const json line = {{"lineage",
                      {{{"snapshot_id", "id-1"}, {"exists", true}},
                       {{"snapshot_id", "id-0"}, {"names", {"base"}}, {"exists", true}, {"kind", "image"}},
                       {{"snapshot_id", "gone"}, {"exists", false}}}}};
  const auto handler = [&](const FakeRequest& request) -> FakeReply {
    return {.body = request.target == "/v1/snapshots/warm/stats" ? stats().dump() : line.dump()};
  };
  const Call call(handler, {"snapshot", "inspect", "warm"}, kTerminal);
  EXPECT_EQ(call.status, 0) << call.err;
  EXPECT_EQ(call.requests.at(1).target, "/v1/snapshots/warm/lineage");
  EXPECT_THAT(call.out, AllOf(HasSubstr("warm (id-1)"), HasSubstr("fragmentation 0.2500"), HasSubstr("base (id-0)"),
                              HasSubstr("deleted"), HasSubstr("FORM"), HasSubstr("zstd")));
  json whole = stats();
  whole["lineage"] = line["lineage"];
  EXPECT_EQ(json::parse(Call(handler, {"snapshot", "inspect", "warm"}).out), whole);
}

TEST(Svg, CellsOfOneColourAreOneRectangleAndTextIsEscaped) {
  const std::string svg = spaces_svg(stats(), "warm & <cold>");
  EXPECT_THAT(svg, AllOf(HasSubstr("warm &amp; &lt;cold&gt;"), HasSubstr("&lt;l0&gt;"), Not(HasSubstr("<l0>"))));
  EXPECT_THAT(svg, HasSubstr("width=\"20\" height=\"10\" fill=\"hsl(220,70%,45%)\""));
  EXPECT_THAT(svg, HasSubstr("width=\"10\" height=\"10\" fill=\"hsl(0,70%,55%)\""));
  EXPECT_THAT(svg, HasSubstr("width=\"10\" height=\"10\" fill=\"#eeeeee\""));
  EXPECT_THAT(spaces_svg(json::object(), ""), HasSubstr("</svg>"));
}

TEST(Diff, ATable) {
  const json answer = {{"spaces",
                        {{{"name", "memory"}, {"changed_bytes", 8192}, {"runs", 2}, {"compared_bytes", 12288}},
                         {{"name", "disk"}, {"changed_bytes", 0}}}}};
  const Call call(always({.body = answer.dump()}), {"snapshot", "diff", "a", "b/c"}, kTerminal);
  EXPECT_EQ(call.status, 0) << call.err;
  EXPECT_EQ(call.requests.at(0).target, "/v1/snapshots/a/diff?to=b%2Fc");
  EXPECT_THAT(call.out, HasSubstr("memory"));
  EXPECT_THAT(call.out, HasSubstr("8 KiB"));
  EXPECT_EQ(Call(always({}), {"snapshot", "diff", "a"}).status, 2);
}

json change(const std::string& kind, const std::string& path) {
  return {{"change", kind},     {"path", path},        {"old_path", nullptr}, {"type_before", "file"},
          {"type_now", "file"}, {"size_before", 1024}, {"size_now", 4096},    {"what", json::array()}};
}

json disk_with(const json& files) {
  return {{"spaces", {{{"name", "disk"}, {"changed_bytes", 4096}, {"files", files}}}}};
}

TEST(Diff, TheFilesOfTheDisk) {
  json renamed = change("renamed", "/etc/\u009b31mnew\n");
  renamed["old_path"] = "/etc/old";
  renamed["what"] = {"content", "mode"};
  json removed = change("removed", "/gone");
  removed["type_now"] = nullptr;
  json other = change("type", "/other");
  other["type_now"] = "directory";
  const json files = {{"note", nullptr},
                      {"counts", {{"added", 0}, {"removed", 7}, {"renamed", 1}, {"type", 1}}},
                      {"changes", {renamed, removed, other}}};
  const Call call(always({.body = disk_with(files).dump()}), {"snapshot", "diff", "a", "b"}, kTerminal);
  EXPECT_EQ(call.status, 0) << call.err;
  EXPECT_THAT(call.out,
              AllOf(HasSubstr("renamed  /etc/old -> /etc/?31mnew?"), HasSubstr("1 KiB -> 4 KiB  content, mode\n"),
                    HasSubstr("removed  /gone"), HasSubstr("file -> directory"), HasSubstr("\nand 6 more\n")));
  EXPECT_THAT(call.out, Not(HasSubstr("\u009b")));
}

TEST(Diff, NoFiles) {
  const json note = {{"note", "it holds no\nfile system"}, {"counts", nullptr}, {"changes", json::array()}};
  EXPECT_THAT(Call(always({.body = disk_with(note).dump()}), {"snapshot", "diff", "a", "b"}, kTerminal).out,
              HasSubstr("which files of the disk differ is not known: it holds no?file system\n"));
  const json none = {{"note", nullptr}, {"counts", {{"added", 0}}}, {"changes", json::array()}};
  EXPECT_THAT(Call(always({.body = disk_with(none).dump()}), {"snapshot", "diff", "a", "b"}, kTerminal).out,
              HasSubstr("no file of the disk differs\n"));
}

TEST(Retention, AsksForWhatWasSaid) {
  const json policy = {{"scope", "template"}, {"target", "base"}, {"keep_last", 3}, {"max_age_sec", 604'800}};
  const Call set(always({.body = policy.dump()}),
                 {"snapshot", "retention", "set", "--template", "base", "--keep-last", "3", "--max-age", "7d"},
                 kTerminal);
  EXPECT_EQ(set.status, 0) << set.err;
  EXPECT_EQ(set.requests.at(0).method, "PUT");
  EXPECT_EQ(set.requests.at(0).target, "/v1/retention/template/base");
  EXPECT_EQ(json::parse(set.requests.at(0).body), (json{{"keep_last", 3}, {"max_age_sec", 604'800}}));
  EXPECT_THAT(set.out, AllOf(HasSubstr("template"), HasSubstr("7 d")));
  const Call remove(always({.status = 204, .body = ""}), {"snapshot", "retention", "rm", "--sandbox", "box"});
  EXPECT_EQ(remove.status, 0) << remove.err;
  EXPECT_EQ(remove.requests.at(0).method, "DELETE");
  EXPECT_EQ(remove.requests.at(0).target, "/v1/retention/sandbox/box");
  const Call list(always({.body = json{{"policies", {policy}}}.dump()}), {"snapshot", "retention", "ls"}, kTerminal);
  EXPECT_THAT(list.out, HasSubstr("base"));
  EXPECT_THAT(Call(always({.body = R"({"policies":[]})"}), {"snapshot", "retention", "ls"}, kTerminal).out,
              HasSubstr("no policies"));
}

TEST(Retention, RefusesWhatMakesNoSense) {
  for (const std::vector<std::string>& rest :
       std::vector<std::vector<std::string>>{{"--keep-last", "1"},
                                             {"--template", "a", "--sandbox", "b", "--keep-last", "1"},
                                             {"--template", "a"},
                                             {"--template", "a", "--keep-last", "0"},
                                             {"--template", "a", "--max-age", "long"}}) {
    std::vector<std::string> arguments{"snapshot", "retention", "set"};
    arguments.insert(arguments.end(), rest.begin(), rest.end());
    const Call call(always({}), arguments);
    EXPECT_EQ(call.status, 2) << ::testing::PrintToString(rest);
    EXPECT_TRUE(call.requests.empty());
  }
}

}  // namespace
}  // namespace stasis::cli
