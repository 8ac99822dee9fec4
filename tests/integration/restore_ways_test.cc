// A restore in each of its ways: mapped, in part, and served by the pager; and what ends one.
#include <array>
#include <map>

#include "snapshot/ranges.h"
#include "snapshot/verified.h"
#include "snapshot/working_set.h"
#include "tests/integration/supervisor_fixture.h"

namespace stasis::supervisor {
namespace {

using ::testing::AllOf;

class RestoreWaysTest : public SupervisorTest {};

TEST_F(RestoreWaysTest, APageOfAMappedLayerThatCannotBeReadEndsTheSandboxWithTheReason) {
  SnapshotId id;
  ASSERT_NO_FATAL_FAILURE(pause_booted("to-cut", id));
  Running mapped = start(id, "cut", kRestoreMapped);
  ASSERT_TRUE(mapped.client->state(Milliseconds(60'000)));
  const snapshot::LayerId layer = layer_of_memory(id);
  const Path file = layer_data_path(store_->layers_dir(), layer);
  std::filesystem::permissions(file, std::filesystem::perms(0600));
  std::filesystem::resize_file(file, 0);
  const ExitRecord record = end_of(mapped);
  EXPECT_EQ(record.error.code, Code::kDataLoss);
  EXPECT_THAT(record.error.message, HasSubstr("mapped layer"));
}

// Of a paused guest's snapshot: what is not mapped is told, and what is asked for is not exchanged for something else.
TEST_F(RestoreWaysTest, WhatIsNotKnownToBeWholeIsNotMapped) {
  SnapshotId id;
  ASSERT_NO_FATAL_FAILURE(pause_booted("unverified", id));
  const snapshot::LayerId layer = layer_of_memory(id);
  snapshot::VerifiedLayers(*store_).forget(layer);

  Running served = start(id, "served");
  ASSERT_TRUE(served.client->state(Milliseconds(60'000)));
  await_daemon(*served.client);
  const auto state = served.client->state(Milliseconds(5000));
  ASSERT_TRUE(state);
  EXPECT_EQ(state->restore_method, kRestoreUffd);
  EXPECT_THAT(state->restore_reason, HasSubstr(layer.text()));
  ASSERT_TRUE(served.client->stop("test", Milliseconds(5000)));

  Running refused = launch(id, "refused", kRestoreMapped);
  const ExitRecord record = end_of(refused);
  EXPECT_EQ(record.error.code, Code::kFailedPrecondition);
  EXPECT_THAT(record.error.message, HasSubstr(layer.text()));
}

// The memory of a paused guest that ran on for a moment: its first layer can be mapped, its second one cannot.
class PartlyMappedTest : public SupervisorTest {
 protected:
  void SetUp() override {
    SupervisorTest::SetUp();
    SnapshotId first;
    const std::string name = ::testing::UnitTest::GetInstance()->current_test_info()->name();
    ASSERT_NO_FATAL_FAILURE(pause_booted(name + "-booted", first));
    Running restored = start(first, name + "-restored");
    ASSERT_TRUE(restored.client->state(Milliseconds(60'000)));
    await_daemon(*restored.client);
    ASSERT_TRUE(restored.client->pause(id_, Milliseconds(60'000)));
    ASSERT_TRUE(restored.process->wait(Deadline::never()));
    const auto map = map_of_memory(id_);
    const auto layers = map.layers();
    ASSERT_EQ(layers.size(), 2U);
    newer_ = layers[0] == layer_of_memory(first) ? layers[1] : layers[0];
    snapshot::VerifiedLayers(*store_).forget(newer_);
  }
  SnapshotId id_ = SnapshotId::random();
  snapshot::LayerId newer_;
};

TEST_F(PartlyMappedTest, TheRestIsServedAndTheNextSnapshotIsOfBoth) {
  Running partly = start(id_, "partly");
  ASSERT_TRUE(partly.client->state(Milliseconds(60'000)));
  await_daemon(*partly.client);
  const auto state = partly.client->state(Milliseconds(5000));
  ASSERT_TRUE(state);
  EXPECT_EQ(state->restore_method, kRestorePartly) << state->restore_reason;
  EXPECT_THAT(state->restore_reason, AllOf(HasSubstr("MiB are mapped"), HasSubstr(newer_.text())));
  const uint64_t held = bytes_of_memory(id_);
  EXPECT_GT(state->mapped_bytes, held / 2);
  EXPECT_LT(state->mapped_bytes + state->copied_bytes, held);
  EXPECT_GT(state->pages_prefetched, 0U) << "its newest layer is what its generation changed";
  const auto trace = partly.client->trace(Milliseconds(5000));
  ASSERT_TRUE(trace);
  EXPECT_EQ(trace->method, kRestorePartly);
  std::map<std::string, uint64_t> pages;
  for (const auto& row : trace->report.pages) pages[row.how] += row.pages;
  EXPECT_EQ(pages["mapped"] + pages["copied"], (state->mapped_bytes + state->copied_bytes) / 4096);
  EXPECT_GT(pages["prefetch"], 0U);

  const SnapshotId live = SnapshotId::random();
  ASSERT_TRUE(partly.client->snapshot(live, Milliseconds(60'000)));
  const SnapshotId last = SnapshotId::random();
  const auto paused = partly.client->pause(last, Milliseconds(60'000));
  ASSERT_TRUE(paused) << paused.error().message;
  EXPECT_LT(paused->memory.stored_bytes, held / 4);
  ASSERT_TRUE((*partly.process->wait(Deadline::never()))->success());
  for (const SnapshotId then : {live, last}) {
    Running again = start(then, "again-" + then.text(), kRestoreUffd);
    ASSERT_TRUE(again.client->state(Milliseconds(60'000)));
    await_daemon(*again.client);
    ASSERT_TRUE(again.client->stop("test", Milliseconds(5000)));
  }
}

TEST_F(PartlyMappedTest, AskedForMappedItIsNotServedInPart) {
  Running refused = launch(id_, "not-in-part", kRestoreMapped);
  const ExitRecord record = end_of(refused);
  EXPECT_EQ(record.error.code, Code::kFailedPrecondition);
  EXPECT_THAT(record.error.message, HasSubstr(newer_.text()));
}

TEST_F(PartlyMappedTest, AServedPageThatIsDamagedEndsTheSandboxWithTheReason) {
  const Path file = layer_data_path(store_->layers_dir(), newer_);
  std::filesystem::permissions(file, std::filesystem::perms(0600));
  const uint64_t size = std::filesystem::file_size(file);
  std::fstream bytes(file, std::ios::in | std::ios::out | std::ios::binary);
  for (uint64_t at = 100; at < size; at += 65536) bytes.seekp(static_cast<std::streamoff>(at)).write("damage", 6);
  bytes.close();
  Running partly = launch(id_, "damaged-in-part", "");
  const ExitRecord record = end_of(partly);
  EXPECT_EQ(record.error.code, Code::kDataLoss);
  EXPECT_THAT(record.error.message, HasSubstr(newer_.text()));
}

// What a restore touches is written down for three seconds. A pause within them keeps what is known by then.
TEST_F(RestoreWaysTest, APauseSoonAfterARestoreKeepsWhatWasTouched) {
  SnapshotId first;
  ASSERT_NO_FATAL_FAILURE(pause_booted("for-a-moment", first));

  Running restored = start(first, "moment", kRestoreUffd);
  ASSERT_TRUE(restored.client->state(Milliseconds(60'000)));
  const auto trace = restored.client->trace(Milliseconds(5'000));
  ASSERT_TRUE(trace);
  const SnapshotId second = SnapshotId::random();
  ASSERT_TRUE(restored.client->pause(second, Milliseconds(60'000)));
  ASSERT_TRUE(restored.process->wait(Deadline::never()));
  const auto guess = snapshot::load_working_set(*store_, second);
  ASSERT_TRUE(guess) << guess.error().message;
  const auto ahead = snapshot::prefetch_ranges(guess->entries, UINT64_MAX);
  size_t faults = 0;
  for (const TraceReply::Event& event : trace->events) {
    if (event.how != "fault") continue;
    ++faults;
    const std::array page{Range{event.offset, event.length}};
    EXPECT_TRUE(snapshot::subtract(page, ahead).empty()) << "page at " << event.offset;
  }
  EXPECT_GT(faults, 0U);
  EXPECT_EQ(snapshot::load_working_set(*store_, first).error().code, Code::kNotFound)
      << "less than three seconds are not what the next restore needs";
}

class WorkingSetTest : public RestoreWaysTest {
 protected:
  // What is kept beside a snapshot once it was seen in `restores`.
  static snapshot::WorkingSet await_set(SnapshotId id, uint32_t restores) {
    const Deadline deadline = Deadline::after(Milliseconds(30'000));
    while (!deadline.passed()) {
      auto set = snapshot::load_working_set(*store_, id);
      if (set && set->restores >= restores) return std::move(*set);
      std::this_thread::sleep_for(Milliseconds(20));
    }
    ADD_FAILURE() << "no working set was kept that was seen in " << restores << " restores";
    return {};
  }
  static std::vector<Range> ranges_of(const snapshot::WorkingSet& set) {
    return snapshot::prefetch_ranges(set.entries, UINT64_MAX);
  }
  // What came because the guest touched it, or beside that.
  static std::vector<Range> came_by_faults(const TraceReply& trace) {
    std::vector<snapshot::WorkingSetEntry> came;
    for (const TraceReply::Event& event : trace.events) {
      if (event.how == "fault" || event.how == "around") came.push_back({{event.offset, event.length}, 0});
    }
    return snapshot::prefetch_ranges(came, UINT64_MAX);
  }
  struct Restored {
    Running running;
    StateReply answered;  // when the daemon did
  };
  Restored restore(SnapshotId id, const std::string& name) {
    Restored restored{start(id, name, kRestoreUffd), {}};
    EXPECT_TRUE(restored.running.client->state(Milliseconds(60'000)));
    await_daemon(*restored.running.client);
    restored.answered = restored.running.client->state(Milliseconds(5000)).value();
    return restored;
  }
};

TEST_F(WorkingSetTest, WhatTwoRestoresTouchedComesAheadOfTheThird) {
  SnapshotId id;
  ASSERT_NO_FATAL_FAILURE(pause_booted("three-times", id));
  const Restored first = restore(id, "first-time");
  EXPECT_EQ(first.answered.pages_prefetched, 0U);
  const auto seen_once = await_set(id, 1);
  EXPECT_EQ(seen_once.restores, 1U);
  ASSERT_TRUE(first.running.client->stop("test", Milliseconds(5000)));

  const Restored second = restore(id, "second-time");
  const auto seen_twice = await_set(id, 2);
  EXPECT_EQ(seen_twice.restores, 2U);
  EXPECT_FALSE(seen_twice.entries.empty());
  const auto trace = second.running.client->trace(Milliseconds(5000));
  ASSERT_TRUE(trace);
  EXPECT_EQ(trace->left_out, 0U);
  EXPECT_TRUE(snapshot::subtract(ranges_of(seen_twice), ranges_of(seen_once)).empty());
  EXPECT_TRUE(snapshot::subtract(ranges_of(seen_twice), came_by_faults(*trace)).empty());
  EXPECT_EQ(second.running.client->state(Milliseconds(5000))->pages_prefetched, 0U);
  ASSERT_TRUE(second.running.client->stop("test", Milliseconds(5000)));

  const Restored third = restore(id, "third-time");
  EXPECT_GT(third.answered.pages_prefetched, 0U);
  EXPECT_LT(third.answered.faults, first.answered.faults);
  ASSERT_TRUE(third.running.client->stop("test", Milliseconds(5000)));
}

// Nobody waits for the three seconds then. One of several restores must be done with less than them since its start: a
// loaded host may take longer to start one.
TEST_F(WorkingSetTest, ItIsKeptSoonAfterTheDaemonHasAnswered) {
  SnapshotId id;
  ASSERT_NO_FATAL_FAILURE(pause_booted("answers", id));
  bool soon = false;
  for (int attempt = 0; attempt < 5 && !soon; ++attempt) {
    (void)real_file_system().remove(store_->snapshot_dir(id) / snapshot::kWorkingSetFile);
    const Deadline three_seconds = Deadline::after(Milliseconds(3'000));
    const Restored restored = restore(id, "answers-" + std::to_string(attempt));
    ASSERT_TRUE(restored.running.client->state_when_answered(Milliseconds(5000)));
    EXPECT_FALSE(await_set(id, 1).entries.empty());
    soon = !three_seconds.passed();
    ASSERT_TRUE(restored.running.client->stop("test", Milliseconds(5000)));
  }
  EXPECT_TRUE(soon);
}

// Nothing of what one restore has touched comes ahead of the second. If that is paused soon, it is known all the same.
TEST_F(WorkingSetTest, APauseBeforeTheComparisonKeepsWhatTheRestoreBeforeTouched) {
  SnapshotId first;
  ASSERT_NO_FATAL_FAILURE(pause_booted("compared", first));
  const uint64_t memory = map_of_memory(first).size();
  const snapshot::WorkingSetEntry last_block{{memory - snapshot::kBlockSize, snapshot::kBlockSize}, 0};
  ASSERT_TRUE(snapshot::keep_working_set(*store_, first, {memory, 1, {last_block}}));
  Running restored = start(first, "compared-soon", kRestoreUffd);
  const auto state = restored.client->state(Milliseconds(60'000));
  ASSERT_TRUE(state);
  EXPECT_EQ(state->pages_prefetched, 0U);
  const SnapshotId second = SnapshotId::random();
  ASSERT_TRUE(restored.client->pause(second, Milliseconds(60'000)));
  ASSERT_TRUE(restored.process->wait(Deadline::never()));
  const auto guess = snapshot::load_working_set(*store_, second);
  ASSERT_TRUE(guess) << guess.error().message;
  EXPECT_TRUE(snapshot::subtract(std::array{last_block.range}, ranges_of(*guess)).empty());
  EXPECT_EQ(snapshot::load_working_set(*store_, first)->restores, 1U);
}

// Several clones of a snapshot with a guess at once: it came ahead of all of them, and none has seen whether it is
// needed.
TEST_F(WorkingSetTest, ARestoreThatHadItsGuessAheadDoesNotCountForIt) {
  SnapshotId id;
  ASSERT_NO_FATAL_FAILURE(pause_booted("guessed", id));
  const uint64_t memory = map_of_memory(id).size();
  const snapshot::WorkingSetEntry last_block{{memory - snapshot::kBlockSize, snapshot::kBlockSize}, 0};
  ASSERT_TRUE(snapshot::keep_working_set(*store_, id, {memory, 0, {last_block}}));
  Running restored = start(id, "with-a-guess", kRestoreUffd);
  ASSERT_TRUE(restored.client->state(Milliseconds(60'000)));
  const snapshot::WorkingSet by_another{memory, 1, {{{0, memory}, 9}}};
  ASSERT_TRUE(snapshot::keep_working_set(*store_, id, by_another));
  const Deadline deadline = Deadline::after(Milliseconds(30'000));
  auto kept = snapshot::load_working_set(*store_, id);
  while (kept && kept->entries == by_another.entries && !deadline.passed()) {
    std::this_thread::sleep_for(Milliseconds(20));
    kept = snapshot::load_working_set(*store_, id);
  }
  ASSERT_TRUE(kept);
  EXPECT_NE(kept->entries, by_another.entries);
  EXPECT_EQ(kept->restores, 1U);
  EXPECT_TRUE(snapshot::subtract(std::array{last_block.range}, ranges_of(*kept)).empty());
  ASSERT_TRUE(restored.client->stop("test", Milliseconds(5000)));
}

TEST_F(RestoreWaysTest, DamagedMemoryEndsTheRestoreWithTheReason) {
  SnapshotId id;
  ASSERT_NO_FATAL_FAILURE(pause_booted("to-damage", id));
  // Every frame of the memory's layer is damaged: the first fault finds it.
  const Path file = layer_data_path(store_->layers_dir(), layer_of_memory(id));
  std::filesystem::permissions(file, std::filesystem::perms(0600));
  const auto fd = real_file_system().open_write(file);
  ASSERT_TRUE(fd);
  const auto data = real_file_system().data_ranges(fd->get());
  const std::array flipped{std::byte{0x5a}, std::byte{0xa5}};
  for (const Range& range : *data) {
    for (uint64_t at = range.offset; at < range.end(); at += snapshot::kFrameSize) {
      ASSERT_TRUE(real_file_system().write_at(fd->get(), at, flipped));
    }
  }
  Running restored = start(id, "damaged");
  const ExitRecord record = end_of(restored);
  EXPECT_EQ(record.error.code, Code::kDataLoss);
  for (const std::string& named : {id.text(), file.filename().string(), std::string("frame ")}) {
    EXPECT_THAT(record.error.message, HasSubstr(named));
  }
}

}  // namespace
}  // namespace stasis::supervisor
