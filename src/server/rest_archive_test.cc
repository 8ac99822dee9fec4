#include <gmock/gmock.h>

#include "server/testing/harness.h"

namespace stasis::server::testing {
namespace {

using ::testing::HasSubstr;

class RestArchives : public ServerTest {
 protected:
  // A snapshot of this name; its archive at the scripted agent is "archive of <id>".
  std::string snapshot(const std::string& name) {
    const Answer taken = client().post("/v1/snapshots", {{"sandbox_id", create()}, {"name", name}});
    EXPECT_EQ(taken.status, 201u) << taken.text;
    return *agent_->snapshots().begin();
  }
  Answer import(const std::string& query, const std::string& bytes = "an archive") {
    return client().send("POST", "/v1/snapshots/import" + query, bytes, {{"Content-Type", "application/octet-stream"}});
  }
};

TEST_F(RestArchives, ExportStreamsWhatTheAgentSendsFromAnyOffset) {
  const std::string id = snapshot("warm");
  EXPECT_EQ(client().get("/v1/snapshots/warm/export").text, "archive of " + id);
  EXPECT_EQ(client().get("/v1/snapshots/warm/export?from=11").text, id);
  EXPECT_EQ(client().get("/v1/snapshots/warm/export?from=x").status, 400u);
  EXPECT_EQ(client().get("/v1/snapshots/other/export").status, 404u);
  agent_->fail_calls("ExportSnapshot", {Code::kDataLoss, "a frame is damaged", "delete it"});
  const Answer damaged = client().get("/v1/snapshots/warm/export");
  EXPECT_EQ(damaged.status, 500u);
  EXPECT_EQ(damaged.error_code(), "data_loss");
}

TEST_F(RestArchives, ImportMakesATemplateUnderTheGivenNameOrItsOwn) {
  const Answer named = import("?name=copy");
  ASSERT_EQ(named.status, 201u) << named.text;
  EXPECT_EQ(named.body["name"], "copy");
  EXPECT_EQ(named.body["type"], "snapshot");
  EXPECT_EQ(named.body["memory_mb"], 256);
  EXPECT_EQ(client().get("/v1/snapshots/copy").body, named.body);
  EXPECT_EQ(state(create({{"template", "copy"}})), "running");

  const Answer own = import("");
  ASSERT_EQ(own.status, 201u) << own.text;
  EXPECT_EQ(own.body["name"], "as-exported");
  EXPECT_EQ(agent_->snapshots().size(), 2u);
}

TEST_F(RestArchives, ANameThatIsTakenIsRefusedAndNothingStays) {
  snapshot("warm");
  EXPECT_EQ(import("?name=warm").status, 409u);
  EXPECT_EQ(import("?name=base&overwrite=true").status, 409u);
  EXPECT_EQ(import("?name=No%20Name").status, 400u);
  EXPECT_EQ(import("?name=warm&overwrite=perhaps").status, 400u);
  EXPECT_EQ(client().post("/v1/snapshots/import?name=x").status, 400u) << "JSON is no archive";
  EXPECT_EQ(agent_->calls("ImportSnapshot"), 0) << "seen before the agent reads anything";
  ASSERT_EQ(import("").status, 201u);
  EXPECT_EQ(import("").status, 409u);
  EXPECT_EQ(agent_->calls("ImportSnapshot"), 1) << "its own name is seen in its head";
  EXPECT_EQ(import("", "not an archive").status, 400u);
  EXPECT_EQ(agent_->snapshots().size(), 2u);
  EXPECT_EQ(import("?name=warm&overwrite=true").status, 201u);
  EXPECT_EQ(agent_->snapshots().size(), 2u) << "what the name stood for has gone";
}

TEST_F(RestArchives, AnArchiveThatTheAgentRefusesLeavesNothing) {
  agent_->fail_calls("ImportSnapshot", {Code::kDataLoss, "the archive is damaged", "export it again"});
  const Answer refused = import("?name=copy");
  EXPECT_EQ(refused.error_code(), "data_loss");
  EXPECT_THAT(refused.text, HasSubstr("export it again"));
  EXPECT_EQ(client().get("/v1/snapshots/copy").status, 404u);
  EXPECT_TRUE(agent_->snapshots().empty());
}

constexpr const char* kStream = "55555555-5555-5555-5555-555555555555";

// The query of an import that goes on behind `kept`.
std::string going_on(const std::string& kept) {
  return std::string("?stream=") + kStream + "&kept_bytes=" + std::to_string(kept.size()) +
         "&kept_xxh3=0123456789abcdef";
}

TEST_F(RestArchives, AnImportWhoseSenderGoesIsGoneOnWith) {
  const std::string imports = std::string("/v1/imports/") + kStream;
  EXPECT_EQ(client().get(imports).status, 404u);
  const std::string half = "an archive, first half";
  client().raw_half_closed("POST /v1/snapshots/import?name=x&stream=" + std::string(kStream) +
                               " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + client().token() +
                               "\r\nContent-Type: application/octet-stream\r\nContent-Length: 1000\r\n\r\n" + half,
                           [&] { EXPECT_TRUE(eventually([&] { return agent_->kept_import(kStream) == half; })); });
  ASSERT_TRUE(eventually([&] { return agent_->calls("ImportSnapshot") == 1; }));
  EXPECT_TRUE(agent_->snapshots().empty());
  const Answer kept = client().get(imports);
  ASSERT_EQ(kept.status, 200u) << kept.text;
  EXPECT_EQ(kept.body, (Json{{"stream", kStream},
                             {"kept_bytes", half.size()},
                             {"kept_xxh3", "0123456789abcdef"},
                             {"name", "as-exported"}}));

  const Answer done = import(going_on(half) + "&name=x", ", second half");
  ASSERT_EQ(done.status, 201u) << done.text;
  agent_->edit([&](auto&, auto& snapshots) {
    for (auto& [id, snapshot] : snapshots) {
      EXPECT_EQ(snapshot.files["/archive"], snapshot.kind == "snapshot" ? half + ", second half" : "");
    }
  });
  EXPECT_EQ(agent_->snapshots().size(), 1u);
  EXPECT_EQ(client().get(imports).status, 404u) << "it has a name, and nothing is kept any more";
}

TEST_F(RestArchives, WhatIsKeptIsNotMixedWithAnotherArchive) {
  agent_->fail_calls("ForgetKeptImport", {Code::kUnavailable, "not now"}, -1);
  ASSERT_EQ(import("?name=a&stream=" + std::string(kStream)).status, 201u);
  EXPECT_EQ(import(going_on("another length")).status, 409u);
  EXPECT_EQ(import("?stream=" + std::string(kStream) + "&kept_bytes=10&kept_xxh3=0000000000000001").status, 409u);
  for (const char* query :
       {"?kept_bytes=10&kept_xxh3=0123456789abcdef", "?stream=x",
        "?stream=55555555-5555-5555-5555-555555555555&kept_bytes=10",
        "?stream=55555555-5555-5555-5555-555555555555&kept_bytes=10&kept_xxh3=12",
        "?stream=55555555-5555-5555-5555-555555555555&kept_bytes=-1", "?stream=00000000-0000-0000-0000-000000000000"}) {
    EXPECT_EQ(import(query).status, 400u) << query;
  }
  EXPECT_EQ(client().get("/v1/imports/x").status, 400u);
  EXPECT_EQ(client().remove("/v1/imports/x").status, 400u);
}

TEST_F(RestArchives, ANameThatIsTakenLosesNothingThatIsKept) {
  const std::string bytes = "an archive";
  agent_->fail_calls("ForgetKeptImport", {Code::kUnavailable, "not now"}, 1);
  ASSERT_EQ(import("?stream=" + std::string(kStream)).status, 201u);
  // Refused before anything is sent, by the name that the archive kept has.
  EXPECT_EQ(import(going_on(bytes), "").status, 409u);
  EXPECT_EQ(agent_->calls("ImportSnapshot"), 1);
  EXPECT_EQ(agent_->kept_import(kStream), bytes);
  // And where the name was taken meanwhile.
  agent_->hold("ImportSnapshot", ScriptedAgent::Point::kAfter);
  Answer late;
  std::thread importer([&] { late = import(going_on(bytes) + "&name=late", ""); });
  EXPECT_TRUE(agent_->wait_held("ImportSnapshot"));
  EXPECT_EQ(client().post("/v1/snapshots", {{"sandbox_id", create()}, {"name", "late"}}).status, 201u);
  agent_->release("ImportSnapshot");
  importer.join();
  EXPECT_EQ(late.status, 409u) << late.text;
  EXPECT_EQ(agent_->kept_import(kStream), bytes);
  EXPECT_EQ(import(going_on(bytes) + "&name=other", "").status, 201u);
  EXPECT_EQ(agent_->kept_import(kStream), "");
  EXPECT_EQ(client().remove(std::string("/v1/imports/") + kStream).status, 204u);
}

TEST_F(RestArchives, CompactionOfOneSnapshotOrOfEverything) {
  const std::string id = snapshot("warm");
  const Answer one = client().post("/v1/store/compact", {{"name", "warm"}});
  ASSERT_EQ(one.status, 200u) << one.text;
  ASSERT_EQ(one.body["snapshots"].size(), 1u);
  EXPECT_EQ(one.body["snapshots"][0]["snapshot_id"], id);
  EXPECT_EQ(one.body["snapshots"][0]["name"], "warm");
  EXPECT_EQ(one.body["snapshots"][0]["layers_before"], 3);
  EXPECT_EQ(client().post("/v1/store/compact").status, 200u);
  EXPECT_EQ(client().post("/v1/store/compact", {{"name", "other"}}).status, 404u);
}

TEST_F(RestArchives, PackTellsWhatOneSnapshotTookAndTakes) {
  const std::string id = snapshot("warm");
  const Answer packed = client().post("/v1/snapshots/warm/pack");
  ASSERT_EQ(packed.status, 200u) << packed.text;
  EXPECT_EQ(packed.body["snapshot_id"], id);
  EXPECT_EQ(packed.body["name"], "warm");
  EXPECT_EQ(packed.body["stored_before"], 8192);
  EXPECT_EQ(packed.body["stored_after"], 1024);
  EXPECT_EQ(client().post("/v1/snapshots/other/pack").status, 404u);
  EXPECT_EQ(client().post("/v1/snapshots/warm/pack?form=raw").status, 400u);
}

}  // namespace
}  // namespace stasis::server::testing
