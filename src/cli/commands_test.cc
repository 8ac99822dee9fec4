// The commands that talk to a server, against a small one of ours: what they ask for, what they show, how they fail.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/base64.h"
#include "cli/testing/call.h"
#include "snapshot/checksum.h"

namespace stasis::cli {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::Not;

const std::string kId = "k3v9x0c2m5n8q1w4e7r6";

json sandbox(const std::string& id, const std::string& state = "running") {
  return {{"id", id},
          {"template", "base"},
          {"state", state},
          {"vcpus", 1},
          {"memory_mb", 256},
          {"created_at", "2026-11-24T22:31:05Z"},
          {"times", {{"daemon_answered_ms", 812.5}}}};
}

TEST(Create, AsksOnlyForWhatWasSaid) {
  const Call call(always({.status = 201, .body = sandbox(kId).dump()}), {"create"});
  EXPECT_EQ(call.status, 0);
  ASSERT_EQ(call.requests.size(), 1U);
  EXPECT_EQ(call.requests[0].method, "POST");
  EXPECT_EQ(call.requests[0].target, "/v1/sandboxes");
  EXPECT_EQ(json::parse(call.requests[0].body), json::object());
  EXPECT_EQ(call.requests[0].headers.at("authorization"), "Bearer e2b_token");
}

TEST(Create, PassesEveryOptionOn) {
  const Call call(always({.status = 201, .body = sandbox(kId).dump()}),
                  {"create", "--template", "warm", "--vcpus", "2", "--memory", "512", "--disk", "2048", "--timeout",
                   "60", "--env", "A=1", "--env", "B=x=y", "--metadata", "job=42", "--idempotency-key", "k1"});
  EXPECT_EQ(call.status, 0);
  EXPECT_EQ(json::parse(call.requests.at(0).body), (json{{"template", "warm"},
                                                         {"vcpus", 2},
                                                         {"memory_mb", 512},
                                                         {"disk_mb", 2048},
                                                         {"timeout_sec", 60},
                                                         {"env", {{"A", "1"}, {"B", "x=y"}}},
                                                         {"metadata", {{"job", "42"}}}}));
  EXPECT_EQ(call.requests.at(0).headers.at("idempotency-key"), "k1");
}

TEST(Create, ShowsADocumentWhenPipedALineOnATerminalAndTheIdWhenQuiet) {
  const auto handler = always({.status = 201, .body = sandbox(kId).dump()});
  EXPECT_EQ(json::parse(Call(handler, {"create"}).out), sandbox(kId));
  EXPECT_EQ(Call(handler, {"create"}, kTerminal).out, kId + " is running: the guest daemon answered after 812 ms\n");
  EXPECT_EQ(json::parse(Call(handler, {"create", "--json"}, kTerminal).out), sandbox(kId));
  EXPECT_EQ(Call(handler, {"create", "-q"}).out, kId + "\n");
}

TEST(Create, RefusesAPairWithoutAnEqualsSignBeforeItAsks) {
  const Call call(always({}), {"create", "--env", "A"});
  EXPECT_EQ(call.status, 2);
  EXPECT_TRUE(call.requests.empty());
  EXPECT_EQ(json::parse(call.err)["error"]["code"], "invalid_argument");
}

TEST(Errors, OfTheServerAreShownWithCodeAndRemedy) {
  const Call piped(always(error_reply(404, "not_found")), {"pause", kId});
  EXPECT_EQ(piped.status, 1);
  EXPECT_EQ(piped.out, "");
  EXPECT_EQ(json::parse(piped.err),
            (json{{"error", {{"code", "not_found"}, {"message", "it is so"}, {"remedy", "do this"}}}}));
  const Call terminal(always(error_reply(404, "not_found")), {"pause", kId}, kTerminal);
  EXPECT_EQ(terminal.err, "stasis: it is so\n  code:   not_found\n  remedy: do this\n");
  const Call asked(always(error_reply(404, "not_found")), {"pause", kId, "--json"}, kTerminal);
  EXPECT_EQ(json::parse(asked.err)["error"]["code"], "not_found");
}

TEST(Errors, OneWithoutARemedyGetsTheUsualOne) {
  const FakeReply reply{.status = 401, .body = R"({"error":{"code":"unauthenticated","message":"who are you"}})"};
  EXPECT_THAT(Call(always(reply), {"ls"}, kTerminal).err, HasSubstr("remedy: give the server's token"));
  EXPECT_THAT(json::parse(Call(always(reply), {"ls"}).err)["error"]["remedy"], HasSubstr("STASIS_TOKEN"));
}

TEST(Errors, AnAnswerThatIsNotOursSaysSo) {
  const Call html(always({.status = 502, .body = "<html>bad gateway"}), {"ls"});
  EXPECT_EQ(html.status, 1);
  EXPECT_EQ(json::parse(html.err)["error"]["code"], "unavailable");
  const Call text(always({.status = 200, .body = "hello"}), {"ls"});
  EXPECT_EQ(text.status, 1);
  EXPECT_THAT(text.err, HasSubstr("not JSON"));
  const Call shape(always({.status = 200, .body = "[1]"}), {"ls"});
  EXPECT_EQ(shape.status, 1);
  EXPECT_THAT(shape.err, HasSubstr("no list of sandboxes"));
}

TEST(Errors, ABrokenConnectionIsAFailureNotAnUnreachableServer) {
  const Call call(always({.body = "{", .cut_short = true}), {"ls"});
  EXPECT_EQ(call.status, 1);
  EXPECT_EQ(json::parse(call.err)["error"]["code"], "unavailable");
}

TEST(Errors, NoServerIsStatusThree) {
  std::string url;
  {
    const FakeServer gone(always({}));
    url = gone.url();
  }
  const Outcome refused = run_program({"ls", "--url", url});
  EXPECT_EQ(refused.status, 3);
  EXPECT_EQ(json::parse(refused.err)["error"]["code"], "unavailable");
  EXPECT_EQ(run_program({"pause", "a", "b", "--url", url}).status, 3);
  EXPECT_EQ(run_program({"ls", "--state-dir", "/nonexistent/stasis"}).status, 3);
}

TEST(Errors, AMessageCannotControlTheTerminal) {
  const Call call(
      always({.status = 500, .body = json{{"error", {{"code", "internal"}, {"message", "a\x1b[2Jb"}}}}.dump()}), {"ls"},
      kTerminal);
  EXPECT_THAT(call.err, HasSubstr("a?[2Jb"));
}

TEST(List, FollowsThePagesAndHidesStoppedSandboxes) {
  const auto handler = [](const FakeRequest& request) -> FakeReply {
    if (request.target.find("page_token=next%2F1") != std::string::npos) {
      return {.body = json{{"sandboxes", {sandbox("b", "paused")}}, {"next_page_token", nullptr}}.dump()};
    }
    return {.body = json{{"sandboxes", {sandbox("a"), sandbox("s", "stopped")}}, {"next_page_token", "next/1"}}.dump()};
  };
  const Call call(handler, {"ls"});
  EXPECT_EQ(call.status, 0);
  EXPECT_EQ(json::parse(call.out), (json{{"sandboxes", {sandbox("a"), sandbox("b", "paused")}}}));
  EXPECT_EQ(Call(handler, {"ls", "-q", "--all"}).out, "a\ns\nb\n");
  const Call table(handler, {"ls"}, kTerminal);
  EXPECT_THAT(table.out, testing::MatchesRegex("ID  TEMPLATE  STATE    VCPUS   MEMORY +AGE  REASON\n"
                                               "a   base      running      1  256 MiB.*\nb   base      paused .*\n"));
}

TEST(List, PassesFiltersOn) {
  const Call call(always({.body = R"({"sandboxes":[]})"}),
                  {"ls", "--state", "paused,error", "--template", "warm", "--metadata", "job=4 2"}, kTerminal);
  EXPECT_EQ(call.status, 0);
  EXPECT_EQ(call.requests.at(0).target, "/v1/sandboxes?state=paused%2Cerror&template=warm&metadata.job=4%202");
  EXPECT_THAT(call.out, HasSubstr("no sandboxes"));
}

TEST(PauseAndResume, TakeSeveralSandboxesAndGoOnAfterAnError) {
  const auto handler = [](const FakeRequest& request) {
    return request.target == "/v1/sandboxes/b/pause" ? error_reply(409, "failed_precondition")
                                                     : FakeReply{.body = sandbox("x", "paused").dump()};
  };
  const Call call(handler, {"pause", "a", "b", "c"});
  EXPECT_EQ(call.status, 1);
  EXPECT_EQ(call.requests.size(), 3U);
  EXPECT_EQ(std::count(call.out.begin(), call.out.end(), '\n'), 2);
  EXPECT_THAT(call.err, HasSubstr("failed_precondition"));
}

TEST(PauseAndResume, SayWhatWasStoredAndLoaded) {
  json paused = sandbox(kId, "paused");
  paused["last_snapshot"] = {{"stopped_ms", 120.0},
                             {"memory", {{"generation", 1}, {"stored_bytes", 1'258'291}}},
                             {"disk", {{"generation", 1}, {"stored_bytes", 65'536}}}};
  EXPECT_EQ(
      Call(always({.body = paused.dump()}), {"pause", kId}, kTerminal).out,
      kId +
          " is paused: stored memory 1.2 MiB (generation 1), disk 64 KiB (generation 1); the guest stood for 120 ms\n");
  json resumed = sandbox(kId);
  resumed["restore"] = {
      {"method", "uffd"}, {"total_pages", 65'536}, {"pages_by_fault", 300}, {"pages_prefetched", 212}};
  const Call call(always({.body = resumed.dump()}), {"resume", "--timeout", "60", kId}, kTerminal);
  EXPECT_EQ(
      call.out,
      kId +
          " is running: the guest daemon answered after 812 ms; 512 of 65536 pages loaded (2 MiB of 256 MiB, uffd)\n");
  EXPECT_EQ(json::parse(call.requests.at(0).body), (json{{"timeout_sec", 60}}));
  resumed["restore"]["method"] = "mapped";
  resumed["restore"]["resident_pages"] = 1024;
  const Call mapped(always({.body = resumed.dump()}), {"resume", "--restore", "mapped", kId}, kTerminal);
  EXPECT_THAT(mapped.out, HasSubstr("1024 of 65536 pages loaded (4 MiB of 256 MiB, mapped)"));
  EXPECT_EQ(json::parse(mapped.requests.at(0).body), (json{{"restore", "mapped"}}));
  resumed["restore"]["method"] = "partly";
  EXPECT_THAT(Call(always({.body = resumed.dump()}), {"resume", kId}, kTerminal).out,
              HasSubstr("1024 of 65536 pages loaded (4 MiB of 256 MiB, partly)"))
      << "of both parts";
  const Call loaded(always({.body = resumed.dump()}), {"resume", "--load", "100", kId}, kTerminal);
  EXPECT_EQ(json::parse(loaded.requests.at(0).body), (json{{"background_load_mib_per_s", 100}}));
  EXPECT_EQ(Call(always({}), {"resume", "--load", "0", kId}).status, 2);
}

TEST(Rollback, NamesTheSnapshotAndSaysWhatWasLoaded) {
  json restored = sandbox(kId);
  restored["restore"] = {{"method", "uffd"}, {"total_pages", 65'536}, {"pages_by_fault", 0}, {"pages_prefetched", 512}};
  const Call call(always({.body = restored.dump()}),
                  {"rollback", kId, "before", "--timeout", "60", "--restore", "uffd"}, kTerminal);
  EXPECT_EQ(call.requests.at(0).target, "/v1/sandboxes/" + kId + "/rollback");
  EXPECT_EQ(json::parse(call.requests.at(0).body),
            (json{{"snapshot", "before"}, {"timeout_sec", 60}, {"restore", "uffd"}}));
  EXPECT_THAT(call.out, HasSubstr(kId + " is running"));
  EXPECT_THAT(call.out, HasSubstr("512 of 65536 pages loaded"));
  EXPECT_EQ(Call(always({}), {"rollback", kId}).status, 2);
}

TEST(Remove, TakesIdsOrAllButNotBoth) {
  const auto handler = [](const FakeRequest& request) -> FakeReply {
    if (request.method == "DELETE") return {.status = 204, .body = ""};
    return {.body = json{{"sandboxes", {sandbox("a"), sandbox("b", "error")}}}.dump()};
  };
  const Call all(handler, {"rm", "--all"});
  EXPECT_EQ(all.status, 0);
  ASSERT_EQ(all.requests.size(), 3U);
  EXPECT_EQ(all.requests[2].target, "/v1/sandboxes/b");
  EXPECT_EQ(all.out, "{\"id\":\"a\",\"removed\":true}\n{\"id\":\"b\",\"removed\":true}\n");
  EXPECT_EQ(Call(handler, {"rm"}).status, 2);
  EXPECT_EQ(Call(handler, {"rm", "--all", "a"}).status, 2);
}

TEST(Remove, AnIdCannotBecomeAnotherPath) {
  const Call call(always({.status = 404, .body = "{}"}), {"rm", "../snapshots/warm?x"});
  EXPECT_EQ(call.requests.at(0).target, "/v1/sandboxes/..%2Fsnapshots%2Fwarm%3Fx");
}

TEST(Snapshot, CreateListAndRemove) {
  const json warm = {
      {"name", "warm"}, {"type", "snapshot"}, {"vcpus", 1}, {"memory_mb", 256}, {"size_bytes", 1'048'576}};
  const Call create(always({.status = 201, .body = warm.dump()}), {"snapshot", "create", "--overwrite", kId, "warm"},
                    kTerminal);
  EXPECT_EQ(create.status, 0);
  EXPECT_EQ(create.requests.at(0).target, "/v1/snapshots?overwrite=true");
  EXPECT_EQ(json::parse(create.requests.at(0).body), (json{{"sandbox_id", kId}, {"name", "warm"}}));
  EXPECT_EQ(create.out, "snapshot warm\n");

  json captured = warm;
  captured["capture"] = {{"stopped_ms", 3.0},
                         {"memory", {{"generation", 1}, {"stored_bytes", 1'258'291}}},
                         {"disk", {{"generation", 1}, {"stored_bytes", 65'536}}},
                         {"live", {{"rounds", 3}, {"last_round_bytes", 20'480}}}};
  const auto said = [&] {
    return Call(always({.status = 201, .body = captured.dump()}), {"snapshot", "create", kId, "warm"}, kTerminal).out;
  };
  EXPECT_THAT(said(), HasSubstr("the guest stood for 3.0 ms (20 KiB left after 3 rounds)\n"));
  captured["capture"]["live"]["rounds"] = 1;
  EXPECT_THAT(said(), HasSubstr("(20 KiB left after 1 round)\n"));
  captured["capture"]["live"] = {{"rounds", 0}, {"last_round_bytes", 1'258'291}, {"reason", "nobody looks"}};
  EXPECT_THAT(said(), HasSubstr("3.0 ms (1.2 MiB, nothing copied ahead: nobody looks)\n"));

  const auto listed = always({.body = json{{"snapshots", {warm}}}.dump()});
  EXPECT_EQ(Call(listed, {"snapshot", "ls", "--type", "snapshot"}).requests.at(0).target,
            "/v1/snapshots?type=snapshot");
  EXPECT_THAT(Call(listed, {"snapshot", "ls"}, kTerminal).out, HasSubstr("warm  snapshot      1  256 MiB   1 MiB"));
  EXPECT_EQ(json::parse(Call(listed, {"snapshot", "ls"}).out)["snapshots"][0], warm);

  const Call removed(always({.status = 204, .body = ""}), {"snapshot", "rm", "warm", "cold"});
  EXPECT_EQ(removed.status, 0);
  EXPECT_EQ(removed.requests.at(1).target, "/v1/snapshots/cold");
}

TEST(Snapshot, ExportIsNothingButTheArchive) {
  const Call all(always({.body = "bytes"}), {"snapshot", "export", "warm"});
  EXPECT_EQ(all.status, 0);
  EXPECT_EQ(all.out, "bytes");
  EXPECT_EQ(all.requests.at(0).method, "GET");
  EXPECT_EQ(all.requests.at(0).target, "/v1/snapshots/warm/export");
  const Call rest(always({.body = "tes"}), {"snapshot", "export", "--from", "2", "warm"});
  EXPECT_EQ(rest.requests.at(0).target, "/v1/snapshots/warm/export?from=2");
  EXPECT_EQ(Call(always({.body = "bytes"}), {"snapshot", "export", "warm"}, kTerminal).status, 2);
}

TEST(Snapshot, AnExportThatBreaksSaysHowToGoOn) {
  const Call cut(always({.body = "half", .cut_short = true}), {"snapshot", "export", "--from", "10", "warm"});
  EXPECT_EQ(cut.status, 1);
  const std::string remedy = json::parse(cut.err)["error"]["remedy"];
  const uint64_t there = 10 + cut.out.size();
  EXPECT_EQ(remedy.find("--from " + std::to_string(there)) != std::string::npos, !cut.out.empty()) << remedy;
  const Call missing(always(error_reply(404, "not_found")), {"snapshot", "export", "warm"});
  EXPECT_EQ(missing.status, 1);
  EXPECT_EQ(missing.out, "");
}

// The query of an import without what names its stream.
std::string without_stream(const std::string& target) {
  const size_t at = target.find("&stream=");
  return at == std::string::npos ? "no stream: " + target : target.substr(0, at) + target.substr(at + 8 + 36);
}
std::string stream_in(const std::string& target) { return target.substr(target.find("&stream=") + 8, 36); }

TEST(Snapshot, ImportSendsStandardInput) {
  const json copy = {{"name", "copy"}, {"size_bytes", 2'097'152}};
  const auto server = always({.status = 201, .body = copy.dump()});
  Setting setting = kTerminal;
  setting.input = "an archive";
  const Call call(server, {"snapshot", "import", "--name", "copy"}, setting);
  EXPECT_EQ(call.status, 0);
  ASSERT_EQ(call.requests.size(), 1u);
  EXPECT_EQ(call.requests.at(0).method, "POST");
  EXPECT_EQ(without_stream(call.requests.at(0).target), "/v1/snapshots/import?overwrite=false&name=copy");
  EXPECT_EQ(call.requests.at(0).body, "an archive");
  EXPECT_EQ(call.requests.at(0).headers.at("content-type"), "application/octet-stream");
  EXPECT_EQ(call.out, "snapshot copy: 10 B read, 2 MiB stored\n");
  const Call over(server, {"snapshot", "import", "--overwrite"}, setting);
  EXPECT_EQ(without_stream(over.requests.at(0).target), "/v1/snapshots/import?overwrite=true");
  EXPECT_EQ(stream_in(over.requests.at(0).target), stream_in(call.requests.at(0).target)) << "the same archive";
  setting.input = "another archive";
  EXPECT_NE(stream_in(Call(server, {"snapshot", "import"}, setting).requests.at(0).target),
            stream_in(call.requests.at(0).target));
}

// A server that has kept something of an archive.
FakeServer::Handler keeper(uint64_t bytes, const std::string& checksum, const FakeReply& to_import) {
  return [=](const FakeRequest& request) {
    if (request.method == "POST") return to_import;
    return FakeReply{.body = json{{"kept_bytes", bytes}, {"kept_xxh3", checksum}, {"name", "warm"}}.dump()};
  };
}

TEST(Snapshot, AnImportGoesOnWithWhatIsKept) {
  const FakeReply done{.status = 201, .body = json{{"name", "warm"}, {"size_bytes", 4096}}.dump()};
  Setting setting = kTerminal;
  for (char c = 'a'; c <= 'z'; ++c) setting.input += std::string(20'000, c);
  const std::string& whole = setting.input;
  for (const size_t kept : {size_t{1}, size_t{65'536}, size_t{300'000}, whole.size()}) {
    const std::string sum = snapshot::checksum_text(snapshot::checksum(std::as_bytes(std::span(whole).first(kept))));
    const Call call(keeper(kept, sum, done), {"snapshot", "import", "--resume", "--name", "warm"}, setting);
    EXPECT_EQ(call.status, 0) << call.err;
    ASSERT_EQ(call.requests.size(), 2u);
    const std::string stream = stream_in(call.requests[1].target);
    EXPECT_EQ(call.requests[0].method + call.requests[0].target, "GET/v1/imports/" + stream);
    EXPECT_EQ(without_stream(call.requests[1].target), "/v1/snapshots/import?overwrite=false&name=warm&kept_bytes=" +
                                                           std::to_string(kept) + "&kept_xxh3=" + sum);
    EXPECT_TRUE(call.requests[1].body == whole.substr(kept)) << kept;
    EXPECT_THAT(call.out, HasSubstr("of it kept from before"));
  }
  const auto nothing = [&](const FakeRequest& request) {
    return request.method == "POST" ? done : error_reply(404, "not_found");
  };
  const Call fresh(nothing, {"snapshot", "import", "--resume"}, setting);
  EXPECT_EQ(fresh.status, 0) << fresh.err;
  EXPECT_TRUE(fresh.requests.at(1).body == whole);
  EXPECT_EQ(without_stream(fresh.requests.at(1).target), "/v1/snapshots/import?overwrite=false");
}

TEST(Snapshot, AnotherArchiveIsNotSentBehindWhatIsKept) {
  Setting setting = kTerminal;
  setting.input = std::string(100'000, 'x');
  const Call changed(keeper(5000, "0123456789abcdef", {}), {"snapshot", "import", "--resume"}, setting);
  EXPECT_EQ(changed.status, 1);
  EXPECT_THAT(changed.err, HasSubstr("has changed"));
  EXPECT_EQ(changed.requests.size(), 1u) << "nothing was sent";
  const Call shorter(keeper(100'001, "0123456789abcdef", {}), {"snapshot", "import", "--resume"}, setting);
  EXPECT_EQ(shorter.status, 1);
  EXPECT_THAT(shorter.err, HasSubstr("ends after 100000 bytes"));
  EXPECT_EQ(shorter.requests.size(), 1u);
}

TEST(Snapshot, AnImportThatBreaksSaysHowToGoOn) {
  Setting setting;
  setting.input = "an archive";
  const Call taken(keeper(1'048'576, "0123456789abcdef", error_reply(409, "already_exists")), {"snapshot", "import"},
                   setting);
  EXPECT_EQ(taken.status, 1);
  const std::string remedy = json::parse(taken.err)["error"]["remedy"];
  EXPECT_THAT(remedy, HasSubstr("do this; 1 MiB are kept"));
  EXPECT_THAT(remedy, HasSubstr("--resume"));
  const Call gone(always({.cut_short = true}), {"snapshot", "import"}, setting);
  EXPECT_THAT(gone.err, HasSubstr("--resume"));
  const auto nothing_kept = [](const FakeRequest& request) {
    return request.method == "POST" ? error_reply(400, "invalid_argument") : error_reply(404, "not_found");
  };
  EXPECT_THAT(Call(nothing_kept, {"snapshot", "import"}, setting).err, ::testing::Not(HasSubstr("--resume")));
}

TEST(Snapshot, PackTellsBytesBeforeAndAfter) {
  const json packed = {{"name", "warm"}, {"spaces", 1}, {"stored_before", 3'145'728}, {"stored_after", 1'048'576}};
  const Call call(always({.body = packed.dump()}), {"snapshot", "pack", "warm"}, kTerminal);
  EXPECT_EQ(call.status, 0);
  EXPECT_EQ(call.requests.at(0).target, "/v1/snapshots/warm/pack");
  EXPECT_EQ(call.out, "snapshot warm: 3 MiB are 1 MiB now\n");
  const Call nothing(always({.body = R"({"name": "warm", "spaces": 0})"}), {"snapshot", "pack", "warm"}, kTerminal);
  EXPECT_THAT(nothing.out, HasSubstr("nothing to gain"));
}

TEST(StoreCommands, Compact) {
  const json one = {{"name", "warm"},      {"snapshot_id", "x"},      {"spaces", 2},
                    {"layers_before", 40}, {"live_bytes", 1'048'576}, {"read_bytes", 2'000'000}};
  const Call named(always({.body = json{{"snapshots", {one}}}.dump()}), {"store", "compact", "warm"}, kTerminal);
  EXPECT_EQ(named.status, 0);
  EXPECT_EQ(json::parse(named.requests.at(0).body), (json{{"name", "warm"}}));
  EXPECT_EQ(named.out, "snapshot warm: 40 layers are 2 now, 1 MiB\n");
  const Call all(always({.body = json{{"snapshots", json::array()}}.dump()}), {"store", "compact"}, kTerminal);
  EXPECT_EQ(all.requests.at(0).target, "/v1/store/compact");
  EXPECT_EQ(all.out, "nothing to gain\n");
}

FakeReply stream(const std::vector<json>& messages) {
  FakeReply reply;
  for (const json& message : messages) reply.messages.push_back(message.dump());
  return reply;
}

json output(const std::string& type, const std::string& bytes) {
  return {{"type", type}, {"data", base64_encode(bytes)}};
}

TEST(Exec, StreamsOutputAndExitsAsTheCommandDid) {
  const Call call(always(stream({{{"type", "started"}, {"pid", 7}},
                                 output("stdout", std::string("a\0b\n", 4)),
                                 output("stderr", "oops\n"),
                                 output("stdout", "c"),
                                 {{"type", "exited"}, {"exit_code", 42}, {"status", "exited"}}})),
                  {"exec", "--user", "root", "--cwd", "/tmp", "--env", "A=1", "--timeout", "2.5", kId, "--", "sh", "-c",
                   "echo -- x"});
  EXPECT_EQ(call.status, 42);
  EXPECT_EQ(call.out, std::string("a\0b\nc", 5));
  EXPECT_EQ(call.err, "oops\n");
  ASSERT_EQ(call.requests.size(), 1U);
  EXPECT_EQ(call.requests[0].method, "WEBSOCKET");
  EXPECT_EQ(call.requests[0].target, "/v1/sandboxes/" + kId + "/exec/stream");
  EXPECT_EQ(call.requests[0].headers.at("authorization"), "Bearer e2b_token");
  EXPECT_EQ(json::parse(call.requests[0].body), (json{{"command", {"sh", "-c", "echo -- x"}},
                                                      {"user", "root"},
                                                      {"cwd", "/tmp"},
                                                      {"env", {{"A", "1"}}},
                                                      {"timeout_ms", 2500}}));
}

TEST(Exec, TheCommandIsVerbatimWithAndWithoutDashes) {
  const auto handler = always(stream({{{"type", "exited"}, {"exit_code", 0}, {"status", "exited"}}}));
  const json expected = {"ls", "-l", "--json", "--", "-x"};
  const Call dashes(handler, {"exec", kId, "--", "ls", "-l", "--json", "--", "-x"});
  EXPECT_EQ(json::parse(dashes.requests.at(0).body)["command"], expected);
  const Call plain(handler, {"exec", kId, "ls", "-l", "--json"});
  EXPECT_EQ(json::parse(plain.requests.at(0).body)["command"], (json{"ls", "-l", "--json"}));
  EXPECT_EQ(Call(handler, {"exec", kId, "--"}).status, 2);
  EXPECT_EQ(Call(handler, {"exec", kId}).status, 2);
}

TEST(Exec, ASignalBecomesAShellsStatus) {
  const auto ended = [](const std::string& status) {
    return Call(always(stream({{{"type", "exited"}, {"exit_code", -1}, {"status", status}}})), {"exec", kId, "--", "x"})
        .status;
  };
  EXPECT_EQ(ended("signal: killed"), 137);
  EXPECT_EQ(ended("signal: segmentation fault (core dumped)"), 139);
  EXPECT_EQ(ended("signal: terminated"), 143);
  EXPECT_EQ(ended("who knows"), 255);
}

TEST(Exec, ForwardsStandardInputOnlyWhenItHasData) {
  const auto handler = always(stream({{{"type", "exited"}, {"exit_code", 0}, {"status", "exited"}}}));
  Setting piped;
  piped.input = "print(42)\n";
  EXPECT_EQ(json::parse(Call(handler, {"exec", kId, "--", "python3"}, piped).requests.at(0).body)["stdin"],
            "print(42)\n");
  EXPECT_FALSE(
      json::parse(Call(handler, {"exec", "-n", kId, "--", "cat"}, piped).requests.at(0).body).contains("stdin"));
  EXPECT_FALSE(json::parse(Call(handler, {"exec", kId, "--", "cat"}).requests.at(0).body).contains("stdin"));
}

TEST(Exec, RefusesInputThatItCannotPassOnUnchanged) {
  Setting large;
  large.input = std::string(1024 * 1024 + 1, 'x');
  const Call too_large(always({}), {"exec", kId, "--", "cat"}, large);
  EXPECT_EQ(too_large.status, 2);
  EXPECT_THAT(too_large.err, HasSubstr("1 MiB"));
  Setting binary;
  binary.input = "\xff\xfe";
  const Call not_text(always({}), {"exec", kId, "--", "cat"}, binary);
  EXPECT_EQ(not_text.status, 1);
  EXPECT_TRUE(not_text.requests.empty());
  EXPECT_THAT(not_text.err, HasSubstr("not UTF-8"));
}

TEST(Exec, ErrorsOfTheStreamAndOfTheUpgrade) {
  const Call in_stream(
      always(stream({{{"type", "error"}, {"error", {{"code", "deadline_exceeded"}, {"message", "time is up"}}}}})),
      {"exec", kId, "--", "x"});
  EXPECT_EQ(in_stream.status, 1);
  EXPECT_EQ(json::parse(in_stream.err)["error"]["code"], "deadline_exceeded");
  FakeReply cut = stream({output("stdout", "half")});
  cut.cut_short = true;
  const Call broken(always(cut), {"exec", kId, "--", "x"});
  EXPECT_EQ(broken.status, 1);
  EXPECT_EQ(broken.out, "half");
  for (const json& bad : {json{{"type", "stdout"}, {"data", "%%"}}, json{{"type", "exited"}}, json("text")}) {
    EXPECT_EQ(Call(always(stream({bad})), {"exec", kId, "--", "x"}).status, 1) << bad;
  }
}

TEST(Exec, JsonCollectsEverythingInOneDocument) {
  const json answer = {
      {"exit_code", 3}, {"status", "exited"}, {"stdout", "hi\n"}, {"stderr", ""}, {"encoding", "utf-8"}};
  const Call call(always({.body = answer.dump()}), {"exec", "--json", kId, "--", "x"});
  EXPECT_EQ(call.status, 3);
  EXPECT_EQ(call.requests.at(0).target, "/v1/sandboxes/" + kId + "/exec");
  EXPECT_EQ(json::parse(call.out), answer);
  EXPECT_EQ(Call(always({.body = "{}"}), {"exec", "--json", kId, "--", "x"}).status, 1);  // no exit code is no success
}

class Copy : public testing::Test {
 protected:
  void SetUp() override { std::filesystem::create_directories(directory_); }
  void TearDown() override { std::filesystem::remove_all(directory_); }
  std::string path(const std::string& name) const { return (directory_ / name).string(); }
  const Path directory_ = Path(testing::TempDir()) / ("cli-copy." + std::to_string(::getpid()));
};

TEST_F(Copy, IntoASandbox) {
  const std::string data(700'000, 'd');
  std::ofstream(path("data.bin")) << data;
  const Call call(always({.body = R"({"bytes":700000})"}), {"cp", path("data.bin"), kId + ":/tmp/", "--user", "root"});
  EXPECT_EQ(call.status, 0) << call.err;
  EXPECT_EQ(call.requests.at(0).target, "/v1/sandboxes/" + kId + "/files/write?path=%2Ftmp%2Fdata.bin&user=root");
  EXPECT_EQ(call.requests.at(0).headers.at("content-type"), "application/octet-stream");
  EXPECT_EQ(call.requests.at(0).headers.at("content-length"), "700000");
  EXPECT_EQ(call.requests.at(0).body, data);
  EXPECT_EQ(json::parse(call.out)["bytes"], 700'000);
}

TEST_F(Copy, StandardInputIsSentInChunks) {
  Setting piped;
  piped.input = std::string(300'000, 'i');
  const Call call(always({}), {"cp", "-", kId + ":/tmp/x"}, piped);
  EXPECT_EQ(call.status, 0) << call.err;
  EXPECT_EQ(call.requests.at(0).headers.at("transfer-encoding"), "chunked");
  EXPECT_EQ(call.requests.at(0).body, piped.input);
}

TEST_F(Copy, AnEmptyFileIsCopiedToo) {
  std::ofstream(path("empty")).flush();
  const Call call(always({}), {"cp", path("empty"), kId + ":/tmp/x"});
  EXPECT_EQ(call.status, 0) << call.err;
  EXPECT_EQ(call.requests.at(0).body, "");
}

TEST_F(Copy, OutOfASandboxIntoADirectory) {
  const std::string data = std::string("bytes\0", 6) + std::string(600'000, 'z');
  const Call call(always({.body = data}), {"cp", kId + ":/var/log/x.log", directory_.string()}, kTerminal);
  EXPECT_EQ(call.status, 0) << call.err;
  EXPECT_EQ(call.requests.at(0).target, "/v1/sandboxes/" + kId + "/files/read?path=%2Fvar%2Flog%2Fx.log");
  EXPECT_EQ(call.requests.at(0).headers.at("accept"), "application/octet-stream");
  std::ostringstream copied;
  copied << std::ifstream(path("x.log"), std::ios::binary).rdbuf();
  EXPECT_EQ(copied.str(), data);
}

TEST_F(Copy, ToStandardOutputNothingButTheFile) {
  EXPECT_EQ(Call(always({.body = "content"}), {"cp", kId + ":/x", "-"}).out, "content");
}

TEST_F(Copy, AFailedDownloadLeavesNothing) {
  const Call missing(always(error_reply(404, "not_found")), {"cp", kId + ":/x", path("x")});
  EXPECT_EQ(missing.status, 1);
  EXPECT_EQ(json::parse(missing.err)["error"]["code"], "not_found");
  const Call cut(always({.body = "half", .cut_short = true}), {"cp", kId + ":/x", path("x")});
  EXPECT_EQ(cut.status, 1);
  EXPECT_TRUE(std::filesystem::is_empty(directory_));
}

TEST_F(Copy, RefusesWhatIsNoCopyOfOneFile) {
  EXPECT_EQ(Call(always({}), {"cp", "a", "b"}).status, 2);
  EXPECT_EQ(Call(always({}), {"cp", "x:/a", "y:/b"}).status, 2);
  EXPECT_EQ(Call(always({}), {"cp", kId + ":/dir/", "."}).status, 2);
  EXPECT_EQ(Call(always({}), {"cp", kId + ":", "."}).status, 2);
  const Call directory(always({}), {"cp", directory_.string(), kId + ":/tmp/x"});
  EXPECT_EQ(directory.status, 1);
  EXPECT_TRUE(directory.requests.empty());
  EXPECT_THAT(directory.err, HasSubstr("is a directory"));
}

}  // namespace
}  // namespace stasis::cli
