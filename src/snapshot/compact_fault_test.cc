// Compaction with every call failing, in random histories, and with readers beside it.
#include "snapshot/compact.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "snapshot/testing/chain_guest.h"

namespace stasis::snapshot {
namespace {

using stasis::testing::FaultyFileSystem;
using testing::FaultyStore;
using Guest = testing::ChainGuest;
using ::testing::HasSubstr;
using testing::memory_map_of;
using testing::pick;
using testing::Random;

struct Fault {
  int error_number;
  FaultyFileSystem::Mode mode;
};
class CompactFaultTest : public ::testing::TestWithParam<Fault> {
 protected:
  static void check_every_call(LayerForm form);
};

// With kFromThenOn nothing is cleaned up any more: what is found afterwards is what a crash at that call leaves.
TEST_P(CompactFaultTest, EveryFailingCallLeavesTheSnapshotWholeAndRubbishThatIsSwept) {
  check_every_call(LayerForm::kRaw);
}
TEST_P(CompactFaultTest, EveryFailingCallOfAPackingToo) { check_every_call(LayerForm::kPacked); }

void CompactFaultTest::check_every_call(LayerForm form) {
  uint64_t n = 1;
  for (bool fired = true; fired && !HasFailure(); ++n) {
    SCOPED_TRACE("with call " + std::to_string(n) + " failing");
    FaultyStore store;
    Guest guest(store, 9);
    const SnapshotId id = guest.chain(3);
    store.faulty.fail_at(n, GetParam().error_number, GetParam().mode);
    const auto result = compact(store.store, id, {.form = form});
    fired = store.faulty.fired();
    store.faulty.heal();
    if (!result) {
      EXPECT_THAT(result.error().message, HasSubstr("injected"));
    }
    store.expect_listed_snapshots_whole(guest.known);
    const auto collected = store.healthy.collect(guest.roots());
    ASSERT_TRUE(collected) << collected.error().message;
    store.expect_listed_snapshots_whole(guest.known);
    store.expect_nothing_else(guest.roots());
    EXPECT_TRUE(compact(store.healthy, id, {.form = form})) << "it can be done again";
    store.expect_listed_snapshots_whole(guest.known);
  }
  EXPECT_GT(n, 60U) << "fewer calls than a compaction makes";
}

INSTANTIATE_TEST_SUITE_P(, CompactFaultTest,
                         ::testing::Values(Fault{EIO, FaultyFileSystem::Mode::kOnce},
                                           Fault{ENOSPC, FaultyFileSystem::Mode::kOnce},
                                           Fault{EIO, FaultyFileSystem::Mode::kFromThenOn}));

// A collection with a failing call after a compaction: never less than everything that is listed.
TEST(CompactTest, ACollectionThatFailsAfterwardsLosesNothing) {
  bool fired = true;
  for (uint64_t n = 1; fired && !HasFailure(); ++n) {
    SCOPED_TRACE("with call " + std::to_string(n) + " failing");
    FaultyStore store;
    Guest guest(store, 10);
    ASSERT_TRUE(compact(store.healthy, guest.chain(3)));
    store.faulty.fail_at(n, EIO);
    (void)store.store.collect(guest.roots());
    fired = store.faulty.fired();
    store.faulty.heal();
    store.expect_listed_snapshots_whole(guest.known);
    ASSERT_TRUE(store.healthy.collect(guest.roots()));
    store.expect_nothing_else(guest.roots());
  }
}

TEST(CompactTest, RandomHistoriesWithCompactionsAreWhatTheModelSays) {
  for (uint64_t seed = 1; seed <= 4 && !HasFailure(); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    FaultyStore store;
    Guest guest(store, 100 + seed);
    const auto some = [&] {
      auto at = guest.known.begin();
      std::advance(at, static_cast<ptrdiff_t>(pick(guest.random, 0, guest.known.size() - 1)));
      return at->first;
    };
    guest.chain(1);
    for (int step = 0; step < 30 && !HasFailure(); ++step) {
      SCOPED_TRACE("step " + std::to_string(step));
      const uint64_t what = pick(guest.random, 0, 9);
      if (what < 4 || guest.known.size() < 2) {
        guest.chain(1);
      } else if (what < 7) {
        CompactOptions options;
        options.form = pick(guest.random, 0, 1) == 0 ? LayerForm::kRaw : LayerForm::kPacked;
        const auto result = compact(store.healthy, some(), options);
        ASSERT_TRUE(result) << result.error().message;
      } else if (what < 8) {
        const SnapshotId id = some();
        ASSERT_TRUE(store.healthy.remove(id));
        guest.known.erase(id);
      } else if (what < 9) {
        const SnapshotId id = some();  // the guest goes on from there
        guest.memory_map = memory_map_of(store.healthy, id);
        guest.memory.write(0, guest.known[id].memory);
      } else {
        ASSERT_TRUE(store.healthy.collect(guest.roots()));
        store.expect_nothing_else(guest.roots());
      }
      store.expect_listed_snapshots_whole(guest.known);
    }
  }
}

// Restores, collections and compactions at once: every restore finds every byte.
TEST(CompactTest, RestoresAndCollectionsBesideCompactions) {
  FaultyStore store;
  Guest guest(store, 11);
  std::vector<SnapshotId> ids;
  ids.reserve(6);
  for (int i = 0; i < 6; ++i) ids.push_back(guest.chain(1));
  std::atomic<bool> done = false;
  const auto restore_all = [&](uint64_t seed) {
    Random random(seed);
    while (!done) {
      const SnapshotId id = ids[pick(random, 0, ids.size() - 1)];
      Result<std::shared_ptr<AddressSpace>> space = [&]() -> Result<std::shared_ptr<AddressSpace>> {
        STASIS_ASSIGN(const StoreLock lock, store.healthy.lock_shared());
        STASIS_ASSIGN(const Manifest manifest, store.healthy.load(id));
        STASIS_ASSIGN(BlockMap map, store.healthy.read_map(id, *manifest.memory_map));
        return AddressSpace::open(store.quiet, store.healthy.layers_dir(), std::move(map));
      }();
      ASSERT_TRUE(space) << space.error().message;
      ASSERT_EQ(testing::read_all(**space), guest.known.at(id).memory);
    }
  };
  const auto collect = [&] {
    while (!done) {
      const auto collected = store.healthy.collect(guest.roots());
      if (!collected) {
        ASSERT_EQ(collected.error().code, Code::kAborted) << collected.error().message;
      }
    }
  };
  std::vector<std::thread> threads;
  threads.emplace_back(restore_all, 1);
  threads.emplace_back(restore_all, 2);
  threads.emplace_back(collect);
  for (const SnapshotId id : ids) {
    const auto result = compact(store.healthy, id);
    EXPECT_TRUE(result) << result.error().message;
  }
  done = true;
  for (std::thread& thread : threads) thread.join();
  ASSERT_TRUE(store.healthy.collect(guest.roots()));
  store.expect_listed_snapshots_whole(guest.known);
  store.expect_nothing_else(guest.roots());
}

}  // namespace
}  // namespace stasis::snapshot
