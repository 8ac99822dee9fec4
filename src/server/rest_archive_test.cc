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
  EXPECT_EQ(import("").status, 409u) << "its own name is known only at the end";
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
