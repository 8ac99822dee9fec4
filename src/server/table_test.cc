#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "base/testing/temp_dir.h"
#include "server/active_operations.h"
#include "server/operations.h"
#include "server/store.h"

namespace stasis::server {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

SandboxRecord make(const std::string& id, State state, int64_t created_ms = 1000) {
  SandboxRecord record;
  record.id = id;
  record.template_name = "base";
  record.state = state;
  record.created_ms = record.updated_ms = created_ms;
  return record;
}

class TableTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto store = Store::open(dir_.path() / "db");
    ASSERT_TRUE(store) << store.error().message;
    store_ = std::move(*store);
  }
  void insert(const SandboxRecord& record) {
    ASSERT_TRUE(store_->write([&](Tables& tables) { return tables.sandboxes.insert(record); }));
  }
  SandboxRecord get(const std::string& id) {
    auto record = store_->read([&](Tables& tables) { return tables.sandboxes.get(id); });
    return record ? *record : SandboxRecord();
  }
  Result<bool> change(Transition transition) {
    return store_->write([&](Tables& tables) { return tables.sandboxes.change(transition); });
  }
  std::vector<std::string> list(const SandboxFilter& filter) {
    std::vector<std::string> ids;
    const auto records = store_->read([&](Tables& tables) { return tables.sandboxes.list(filter); });
    if (records) {
      for (const SandboxRecord& record : *records) ids.push_back(record.id);
    }
    return ids;
  }
  std::vector<std::string> orphans() {
    auto ids = store_->write([](Tables& tables) { return tables.orphans.unreferenced(); });
    return ids ? *ids : std::vector<std::string>{"error"};
  }
  Status write_orphan(Status (OrphanTable::*method)(const std::string&), const std::string& id) {
    return store_->write([&](Tables& tables) { return (tables.orphans.*method)(id); });
  }

  stasis::testing::TempDir dir_;
  std::unique_ptr<Store> store_;
};

TEST_F(TableTest, ARowComesBackAsItWent) {
  SandboxRecord record = make("a", State::kPaused);
  record.metadata = {{"k", "v'\"\n"}};
  record.env = {{"A", "1"}};
  record.reason = "because";
  record.deadline_ms = 1234567890123;
  record.snapshot_id = "s";
  record.times = {{"total_ms", 1.5}};
  record.access_token = "secret";
  insert(record);
  const SandboxRecord back = get("a");
  EXPECT_EQ(back.metadata, record.metadata);
  EXPECT_EQ(back.env, record.env);
  EXPECT_EQ(back.reason, "because");
  EXPECT_EQ(back.deadline_ms, record.deadline_ms);
  EXPECT_EQ(back.snapshot_id, "s");
  EXPECT_EQ(back.times, record.times);
  EXPECT_TRUE(back.restore.is_null());
  EXPECT_EQ(back.access_token, "secret");
  EXPECT_EQ(back.state, State::kPaused);
}

TEST_F(TableTest, AChangeNeedsTheStateAndTheEpoch) {
  insert(make("a", State::kRunning));
  EXPECT_FALSE(*change({"a", State::kPaused, {}, State::kResuming, "", {}}));
  EXPECT_TRUE(*change({"a", State::kRunning, 0, State::kPausing, "", {{"pending_snapshot_id", "p"}}}));
  EXPECT_EQ(get("a").epoch, 1);
  EXPECT_EQ(get("a").pending_snapshot_id, "p");
  EXPECT_FALSE(*change({"a", State::kPausing, 0, State::kPaused, "", {}}));
  EXPECT_TRUE(*change({"a", State::kPausing, 1, State::kRunning, "failed", {}}));
  EXPECT_EQ(get("a").reason, "failed");
  EXPECT_FALSE(*change({"unknown", State::kRunning, {}, State::kPausing, "", {}}));
}

TEST_F(TableTest, AChangeThatTheStateMachineLacksIsAnError) {
  insert(make("a", State::kStopping));
  EXPECT_EQ(change({"a", State::kStopping, {}, State::kRunning, "", {}}).error().code, Code::kInternal);
  EXPECT_EQ(get("a").state, State::kStopping);
}

TEST_F(TableTest, OfManyThreadsExactlyOneMakesEachChange) {
  insert(make("a", State::kRunning));
  for (int round = 0; round < 10; ++round) {
    std::atomic<int> won = 0;
    std::vector<std::thread> threads;
    threads.reserve(8);
    for (int i = 0; i < 8; ++i) {
      threads.emplace_back([&] {
        if (*change({"a", State::kRunning, {}, State::kPausing, "", {}})) ++won;
      });
    }
    for (std::thread& thread : threads) thread.join();
    ASSERT_EQ(won, 1);
    ASSERT_TRUE(*change({"a", State::kPausing, {}, State::kRunning, "", {}}));
  }
  EXPECT_EQ(get("a").epoch, 20);
}

TEST_F(TableTest, ListsNewestFirstAndFilters) {
  insert(make("a", State::kRunning, 1));
  insert(make("b", State::kStopped, 2));
  SandboxRecord c = make("c", State::kPaused, 3);
  c.metadata = {{"team", "x"}, {"a.b", "y"}};
  insert(c);
  SandboxRecord d = make("d", State::kRunning, 3);
  d.template_name = "warm";
  d.metadata = {{"team", "x"}};
  insert(d);
  EXPECT_THAT(list({}), ElementsAre("d", "c", "a"));
  EXPECT_THAT(list({{State::kStopped}, "", {}, {}, 100}), ElementsAre("b"));
  EXPECT_THAT(list({{}, "warm", {}, {}, 100}), ElementsAre("d"));
  EXPECT_THAT(list({{}, "", {{"team", "x"}}, {}, 100}), ElementsAre("d", "c"));
  EXPECT_THAT(list({{}, "", {{"team", "x"}, {"a.b", "y"}}, {}, 100}), ElementsAre("c"));
  EXPECT_THAT(list({{}, "", {{"team", "' OR 1=1 --"}}, {}, 100}), IsEmpty());
  EXPECT_THAT(list({{}, "", {}, {}, 2}), ElementsAre("d", "c"));
  EXPECT_THAT(list({{}, "", {}, std::make_pair(int64_t{3}, "c"), 2}), ElementsAre("a"));
}

TEST_F(TableTest, StoppedRowsArePurgedWithTheirKeys) {
  insert(make("old", State::kStopped, 10));
  insert(make("new", State::kStopped, 1000));
  insert(make("alive", State::kRunning, 10));
  ASSERT_TRUE(store_->write([](Tables& tables) { return tables.idempotency.put({"key", "{}", "old"}); }));
  ASSERT_TRUE(store_->write([](Tables& tables) { return tables.sandboxes.purge_stopped(500); }));
  EXPECT_EQ(get("old").id, "");
  EXPECT_EQ(get("new").id, "new");
  EXPECT_EQ(get("alive").id, "alive");
  const auto key = store_->read([](Tables& tables) { return tables.idempotency.find("key"); });
  ASSERT_TRUE(key);
  EXPECT_FALSE(*key);
}

TEST_F(TableTest, OnlyWhatNothingRefersToIsOrphaned) {
  SandboxRecord paused = make("a", State::kPaused);
  paused.snapshot_id = "of-sandbox";
  paused.pending_snapshot_id = "pending";
  insert(paused);
  TemplateRecord named;
  named.name = "warm";
  named.type = "snapshot";
  named.snapshot_id = "of-template";
  ASSERT_TRUE(store_->write([&](Tables& tables) { return tables.templates.insert(named); }));
  for (const char* id : {"of-sandbox", "pending", "of-template", "nobodys", ""}) {
    ASSERT_TRUE(write_orphan(&OrphanTable::release, id));
  }
  EXPECT_THAT(orphans(), ElementsAre("nobodys"));
  ASSERT_TRUE(write_orphan(&OrphanTable::forget, "nobodys"));
  EXPECT_THAT(orphans(), IsEmpty());
}

TEST_F(TableTest, WhatIsBeingMadeIsNoOrphanUntilTheNextStart) {
  ASSERT_TRUE(write_orphan(&OrphanTable::make, "new"));
  EXPECT_THAT(orphans(), IsEmpty());
  ASSERT_TRUE(store_->write([](Tables& tables) { return tables.orphans.release_all(); }));
  EXPECT_THAT(orphans(), ElementsAre("new"));
}

TEST(ActiveOperationsTest, ExclusiveOnesAreAloneButForADestroy) {
  ActiveOperations active;
  {
    const auto change = active.begin("a", Activity::kChange);
    ASSERT_TRUE(change);
    EXPECT_EQ(active.begin("a", Activity::kExclusive).error().code, Code::kAborted);
    EXPECT_TRUE(active.begin("b", Activity::kExclusive));
    EXPECT_TRUE(active.any("a"));
  }
  EXPECT_FALSE(active.any("a"));
  const auto exclusive = active.begin("a", Activity::kExclusive);
  ASSERT_TRUE(exclusive);
  EXPECT_EQ(active.begin("a", Activity::kChange).error().code, Code::kAborted);
  EXPECT_EQ(active.begin("a", Activity::kExclusive).error().code, Code::kAborted);
  EXPECT_TRUE(active.begin("a", Activity::kDestroy));
}

TEST(NameTest, OnlyPlainNamesAreValid) {
  for (const char* good : {"a", "warm", "a.b-c_d", "0", "x1"}) EXPECT_TRUE(valid_name(good)) << good;
  for (const char* bad : {"", "A", ".a", "-a", "a/b", "a..b", "..", "a b", "\xc3\xa4", "a\n"})
    EXPECT_FALSE(valid_name(bad)) << bad;
  EXPECT_TRUE(valid_name(std::string(63, 'a')));
  EXPECT_FALSE(valid_name(std::string(64, 'a')));
}

}  // namespace
}  // namespace stasis::server
