// The store through REST: verification, collection, usage; and what snapshots consist of.
#include <gmock/gmock.h>

#include <sstream>

#include "server/testing/harness.h"
#include "server/testing/openapi_check.h"

namespace stasis::server::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class RestStore : public ServerTest {
 protected:
  std::string snapshot(const std::string& id, const std::string& name) {
    return client().post("/v1/snapshots", {{"sandbox_id", id}, {"name", name}}).body["snapshot_id"];
  }
  void damage(const std::string& snapshot_id) {
    agent_->edit([&](auto&, auto& snapshots) { snapshots[snapshot_id].damaged = true; });
  }
  // The lines of a verification, each as it is described.
  std::vector<Json> lines(const Answer& answer) {
    EXPECT_EQ(answer.status, 200u) << answer.text;
    std::vector<Json> events;
    std::istringstream text(answer.text);
    for (std::string line; std::getline(text, line);) {
      events.push_back(Json::parse(line));
      EXPECT_EQ(schema_error("VerifyEvent", events.back()), "") << line;
    }
    return events;
  }
};

TEST_F(RestStore, AVerificationTellsWhatItFindsAndWhoNeedsIt) {
  const std::string id = create();
  const std::string warm = snapshot(id, "warm");
  auto events = lines(client().post("/v1/snapshots/warm/verify"));
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[0]["type"], "progress");
  EXPECT_EQ(events[1]["type"], "done");
  EXPECT_EQ(events[1]["damages"], 0);

  damage(warm);
  const std::string paused = pause(id).body["snapshot_id"];
  damage(paused);
  events = lines(client().post("/v1/snapshots/warm/verify"));
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(events[1]["type"], "damage");
  EXPECT_EQ(events[1]["frame"], 3);
  EXPECT_EQ(events[1]["snapshots"], (Json{{{"snapshot_id", warm}, {"names", {"warm"}}, {"sandboxes", Json::array()}}}));
  EXPECT_EQ(events[2]["damages"], 1);
  events = lines(client().post("/v1/store/verify"));
  EXPECT_EQ(events.back()["damages"], 2);
  EXPECT_EQ(lines(client().post("/v1/snapshots/" + paused + "/verify"))[1]["snapshots"][0]["sandboxes"], Json{id})
      << "by its id, without a name";
}

TEST_F(RestStore, VerificationsThatFail) {
  EXPECT_EQ(client().post("/v1/snapshots/nosuch/verify").status, 404u);
  EXPECT_EQ(client().post(std::string("/v1/snapshots/") + kGoneId + "/verify").status, 404u) << "the agent says so";
  EXPECT_EQ(client().post("/v1/store/verify", {{"fast", true}}).status, 400u);
  agent_->fail_verifications_at_the_end({Code::kInternal, "the device is gone", ""});
  const auto events = lines(client().post("/v1/store/verify"));
  EXPECT_EQ(events.back()["type"], "error");
  EXPECT_EQ(events.back()["error"]["message"], "the device is gone");
  agent_->stop();
  EXPECT_EQ(client().post("/v1/store/verify").status, 503u);
}

TEST_F(RestStore, Collection) {
  const Answer planned = client().post("/v1/store/gc", {{"dry_run", true}});
  ASSERT_EQ(planned.status, 200u) << planned.text;
  EXPECT_EQ(planned.body["dry_run"], true);
  EXPECT_EQ(planned.body["removed"], (Json{{{"file", "layers/x.raw"}, {"bytes", 4096}}}));
  EXPECT_EQ(client().post("/v1/store/gc").body["dry_run"], false);
  EXPECT_EQ(client().post("/v1/store/gc", {{"grace_sec", 60}}).body["kept_young"], 1);
  EXPECT_EQ(client().post("/v1/store/gc", {{"grace_sec", -1}}).status, 400u);
  agent_->fail_calls("CollectStore", {Code::kAborted, "a snapshot is being written", "try again"});
  EXPECT_EQ(client().post("/v1/store/gc").status, 409u);
}

TEST_F(RestStore, WhatTheHostsOwnVerificationHasFoundIsShown) {
  const std::string warm = snapshot(create(), "warm");
  const std::string file = "/store/snapshots/" + warm + "/state";
  EXPECT_EQ(client().get("/v1/store/usage").body["scrub"], (Json{{"started_at", "2023-11-14T22:13:20.000000000Z"},
                                                                 {"finished_at", nullptr},
                                                                 {"under_way", true},
                                                                 {"checked_bytes", 8192},
                                                                 {"damaged", Json::array()}}));
  agent_->edit([&](auto&, auto& snapshots) { snapshots.at(warm).damaged = true; });
  EXPECT_EQ(client().get("/v1/store/usage").body["scrub"]["damaged"], Json{file});
  const std::string metrics = client().send_plain("GET", "/metrics", "", {}).text;
  EXPECT_THAT(metrics, HasSubstr("stasis_scrub_damaged_files 1\n"));
  EXPECT_THAT(metrics, HasSubstr("stasis_scrub_under_way 1\n"));
  EXPECT_THAT(metrics, HasSubstr("stasis_scrub_checked_bytes 8192\n"));
  EXPECT_THAT(metrics, HasSubstr("stasis_scrub_finished_timestamp_seconds 0\n"));
  agent_->fail_calls("GetScrubState", {Code::kUnavailable, "not now"}, -1);
  EXPECT_EQ(client().get("/v1/store/usage").status, 503u);
  EXPECT_THAT(client().send_plain("GET", "/metrics", "", {}).text, ::testing::Not(HasSubstr("stasis_scrub")));
}

TEST_F(RestStore, UsageNamesWhoHoldsWhat) {
  const std::string id = create();
  const std::string warm = snapshot(id, "warm");
  Answer usage = client().get("/v1/store/usage");
  ASSERT_EQ(usage.status, 200u) << usage.text;
  EXPECT_EQ(usage.body["reclaimable_bytes"], nullptr) << "something is under way";
  EXPECT_EQ(usage.body["holders"].size(), 3u) << "the image, the snapshot, the sandbox";
  ASSERT_EQ(pause(id).status, 200u);
  usage = client().get("/v1/store/usage");
  EXPECT_EQ(usage.body["reclaimable_bytes"], 0);
  for (const Json& holder : usage.body["holders"]) {
    EXPECT_EQ(holder["names"], holder["id"] == warm       ? Json{"warm"}
                               : holder["id"] == kImageId ? Json{"base"}
                                                          : Json::array());
    EXPECT_EQ(holder["sandboxes"], holder["names"].empty() ? Json{id} : Json::array());
  }
}

TEST_F(RestStore, WhatASnapshotConsistsOf) {
  const std::string warm = snapshot(create(), "warm");
  const Answer stats = client().get("/v1/snapshots/warm/stats?cells=1");
  ASSERT_EQ(stats.status, 200u) << stats.text;
  EXPECT_EQ(stats.body["snapshot_id"], warm);
  EXPECT_EQ(stats.body["spaces"][0]["cells"], Json{0});
  EXPECT_EQ(client().get("/v1/snapshots/warm/stats").body["spaces"][0]["cells"], (Json{0, 1}));
  for (const char* cells : {"0", "65537", "many", "1x", "-1"}) {
    EXPECT_EQ(client().get(std::string("/v1/snapshots/warm/stats?cells=") + cells).status, 400u) << cells;
  }
  const Answer line = client().get("/v1/snapshots/warm/lineage");
  ASSERT_EQ(line.status, 200u) << line.text;
  ASSERT_EQ(line.body["lineage"].size(), 2u);
  EXPECT_EQ(line.body["lineage"][0]["names"], Json{"warm"});
  EXPECT_EQ(line.body["lineage"][1]["snapshot_id"], kGoneId);
  EXPECT_EQ(line.body["lineage"][1]["exists"], false);
  EXPECT_EQ(client().get("/v1/snapshots/nosuch/stats").status, 404u);
  EXPECT_EQ(client().get("/v1/snapshots/nosuch/lineage").status, 404u);
}

TEST_F(RestStore, HowTwoDiffer) {
  const std::string warm = snapshot(create(), "warm");
  const Answer diff = client().get("/v1/snapshots/base/diff?to=warm");
  ASSERT_EQ(diff.status, 200u) << diff.text;
  EXPECT_EQ(diff.body["from"]["names"], Json{"base"});
  EXPECT_EQ(diff.body["to"]["snapshot_id"], warm);
  EXPECT_EQ(diff.body["spaces"][0]["runs"], 1);
  const Json files = diff.body["spaces"][0]["files"];
  EXPECT_EQ(files["note"], Json());
  EXPECT_EQ(files["counts"]["renamed"], 1);
  EXPECT_EQ(files["changes"][0]["path"], "/new\\x0a\\xff\\\\");
  EXPECT_EQ(files["changes"][0]["old_path"], "/old");
  EXPECT_EQ(files["changes"][0]["what"], Json{"mode"});
  const Answer unknown = client().get("/v1/snapshots/base/diff?to=base");
  EXPECT_EQ(unknown.body["spaces"][0]["files"]["note"], "no file system");
  EXPECT_EQ(unknown.body["spaces"][0]["files"]["counts"], Json());
  EXPECT_EQ(client().get("/v1/snapshots/base/diff").status, 400u);
  EXPECT_EQ(client().get("/v1/snapshots/base/diff?to=nosuch").status, 404u);
  EXPECT_EQ(client().get(std::string("/v1/snapshots/base/diff?to=") + kGoneId).status, 404u);
}

}  // namespace
}  // namespace stasis::server::testing
