// Which snapshots retention lets go of: the rule, and the transaction around it.
#include "server/retention.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/testing/temp_dir.h"

namespace stasis::server {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr int64_t kNow = 1'000'000'000;

TemplateRecord snapshot(const std::string& name, int64_t age_sec, const std::string& sandbox = "box",
                        const std::string& source = "base") {
  TemplateRecord record;
  record.name = name;
  record.type = "snapshot";
  record.snapshot_id = "id-" + name;
  record.created_ms = kNow - age_sec * 1000;
  record.sandbox_id = sandbox;
  record.source_template = source;
  return record;
}

TEST(NotRetained, KeepsTheLastOnes) {
  const std::vector<TemplateRecord> snapshots{snapshot("a", 40), snapshot("b", 10), snapshot("c", 30),
                                              snapshot("d", 20), snapshot("other", 50, "another")};
  EXPECT_THAT(not_retained({{"sandbox", "box", 2, 0}}, snapshots, {}, kNow), ElementsAre("a", "c"));
  EXPECT_THAT(not_retained({{"sandbox", "box", 4, 0}}, snapshots, {}, kNow), IsEmpty());
  EXPECT_THAT(not_retained({{"template", "base", 1, 0}}, snapshots, {}, kNow), ElementsAre("a", "c", "d", "other"))
      << "of all sandboxes made from it";
  EXPECT_THAT(not_retained({}, snapshots, {}, kNow), IsEmpty());
}

TEST(NotRetained, OfTheSameMomentTheGreaterNameIsTheNewer) {
  EXPECT_THAT(not_retained({{"sandbox", "box", 1, 0}}, {snapshot("x", 5), snapshot("y", 5)}, {}, kNow),
              ElementsAre("x"));
}

TEST(NotRetained, LetsGoOfTheOld) {
  const std::vector<TemplateRecord> snapshots{snapshot("young", 59), snapshot("just", 60), snapshot("old", 61)};
  EXPECT_THAT(not_retained({{"sandbox", "box", 0, 60}}, snapshots, {}, kNow), ElementsAre("old"));
  EXPECT_THAT(not_retained({{"sandbox", "box", 1, 60}}, snapshots, {}, kNow), ElementsAre("just", "old"));
}

TEST(NotRetained, WhatIsInUseWaits) {
  const std::vector<TemplateRecord> snapshots{snapshot("a", 3), snapshot("b", 2), snapshot("c", 1)};
  EXPECT_THAT(not_retained({{"sandbox", "box", 1, 0}}, snapshots, {"id-a"}, kNow), ElementsAre("b"));
}

class ApplyRetention : public ::testing::Test {
 protected:
  ApplyRetention() : store_(Store::open(dir_.path() / "server.db").value()) {}
  template <typename Body>
  void change(Body body) {
    const Status done = store_->write([&](Tables& tables) -> Status { return body(tables); });
    ASSERT_TRUE(done) << done.error().message;
  }
  void add(const TemplateRecord& record) {
    change([&](Tables& tables) { return tables.templates.insert(record); });
  }
  void add_sandbox(const std::string& id, State state, const std::string& base, const std::string& paused_in) {
    SandboxRecord record;
    record.id = id;
    record.state = state;
    record.base_snapshot_id = base;
    record.snapshot_id = paused_in;
    change([&](Tables& tables) { return tables.sandboxes.insert(record); });
  }
  std::vector<std::string> apply() { return apply_retention(*store_, kNow).value(); }
  std::vector<std::string> orphans() {
    return store_->write([](Tables& tables) { return tables.orphans.unreferenced(); }).value();
  }

  stasis::testing::TempDir dir_;
  std::unique_ptr<Store> store_;
};

TEST_F(ApplyRetention, TakesTheNameAndReleasesTheSnapshot) {
  for (const auto& record : {snapshot("a", 3), snapshot("b", 2), snapshot("c", 1)}) add(record);
  EXPECT_THAT(apply(), IsEmpty()) << "no policy";
  change([](Tables& tables) { return tables.retention.put({"sandbox", "box", 1, 0}); });
  EXPECT_THAT(apply(), ElementsAre("a", "b"));
  EXPECT_THAT(orphans(), ElementsAre("id-a", "id-b"));
  EXPECT_THAT(apply(), IsEmpty());
}

TEST_F(ApplyRetention, ClonesAndPausedSandboxesKeepTheirs) {
  for (const auto& record :
       {snapshot("a", 5), snapshot("b", 4), snapshot("c", 3), snapshot("d", 2), snapshot("e", 1)}) {
    add(record);
  }
  add_sandbox("clone", State::kRunning, "id-a", "");
  add_sandbox("asleep", State::kPaused, "image", "id-b");
  add_sandbox("gone", State::kStopped, "id-c", "");
  change([](Tables& tables) { return tables.retention.put({"template", "base", 1, 0}); });
  EXPECT_THAT(apply(), ElementsAre("c", "d"));
  EXPECT_THAT(orphans(), ElementsAre("id-c", "id-d"));
}

TEST_F(ApplyRetention, APolicyGoesWithTheLastOfItsSandbox) {
  add_sandbox("box", State::kRunning, "image", "");
  change([](Tables& tables) -> Status {
    STASIS_TRY(tables.retention.put({"sandbox", "box", 3, 0}));
    STASIS_TRY(tables.retention.put({"sandbox", "gone", 3, 0}));
    return tables.retention.put({"template", "gone", 3, 0});
  });
  apply();
  const auto left = store_->read([](Tables& tables) { return tables.retention.list(); }).value();
  ASSERT_EQ(left.size(), 2U);
  EXPECT_EQ(left[0].target, "box");
  EXPECT_EQ(left[1].scope, "template") << "it may be made again";
}

}  // namespace
}  // namespace stasis::server
