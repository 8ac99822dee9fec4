// snapshot create, ls, rm, export, import, pack; and store compact.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cli/testing/call.h"
#include "snapshot/checksum.h"

namespace stasis::cli {
namespace {

using nlohmann::json;
using testing::HasSubstr;

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

}  // namespace
}  // namespace stasis::cli
