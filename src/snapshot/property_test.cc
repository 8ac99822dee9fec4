// Random histories against a model: guests that share layers write, zero, discard, are frozen, cloned and go on;
// snapshots are removed, names overwritten, compacted, packed and carried over as archives, the store is collected and
// opened anew. After each step every snapshot is what the model says, byte by byte. And the same with collections
// beside it, from another thread.
//   STASIS_PROPERTY_SEED=S, STASIS_PROPERTY_STEPS=N: one long history (`make torture`)
#include <gtest/gtest.h>

#include <mutex>
#include <thread>

#include "base/testing/setting.h"
#include "snapshot/compact.h"
#include "snapshot/testing/archived.h"
#include "snapshot/testing/guest.h"

namespace stasis::snapshot {
namespace {

using stasis::testing::setting;
using testing::FaultyStore;
using testing::Guest;
using testing::pick;
using testing::Random;

template <typename Map>
auto some(Random& random, const Map& map) {
  auto at = map.begin();
  std::advance(at, static_cast<ptrdiff_t>(pick(random, 0, map.size() - 1)));
  return at;
}

class History {
 public:
  explicit History(uint64_t seed) : random_(seed) {
    // An archive is of a machine, whose memory is whole MiB.
    const uint64_t memory_size = seed % 3 == 0 ? 1 << 20 : pick(random_, 1, 120) * kBlockSize;
    const uint64_t disk_size = pick(random_, 1, 120) * kBlockSize;
    for (int i = 0; i < 3; ++i) {
      guests_.push_back(std::make_unique<Guest>(store_, random_, memory_size, disk_size));
    }
  }

  void step() {
    Guest& guest = *guests_[pick(random_, 0, guests_.size() - 1)];
    switch (known_.size() > kMost ? 1 : pick(random_, 0, 13)) {
      case 0:
        return restart(guest);
      case 1:
        return remove();
      case 2:
        return collect();
      case 3:
        store_.store = Store::open(store_.faulty, store_.root).value();
        return;
      case 4:
        return overwrite(guest);
      case 5:
        return rewrite(LayerForm::kRaw);
      case 6:
        return rewrite(LayerForm::kPacked);
      case 7:
        return carry();
      default:
        snapshot(guest, SnapshotId::random());
    }
  }
  void check() { store_.expect_listed_snapshots_whole(known_); }

 private:
  static constexpr size_t kMost = 25;

  void snapshot(Guest& guest, SnapshotId id) {
    guest.change();
    const BlockMap::Metadata before = guest.roots().front().metadata();
    known_[id] = guest.content();
    const Status taken = guest.snapshot(store_.store, id);
    ASSERT_TRUE(taken) << taken.error().message;
    const std::vector<BlockMap> now = guest.roots();
    EXPECT_EQ(now.front().metadata().generation, before.id.is_nil() ? 0 : before.generation + 1);
    EXPECT_EQ(now.front().metadata().base_id, before.id);
    EXPECT_EQ(store_.store.list()->size(), known_.size());
  }

  // The name has another snapshot from now on, and what it had goes; whoever was cloned from that goes on.
  void overwrite(Guest& guest) {
    const SnapshotId id = SnapshotId::random();
    snapshot(guest, id);
    const std::string name = "name " + std::to_string(pick(random_, 0, 2));
    const auto old = names_.find(name);
    if (old != names_.end() && known_.contains(old->second)) forget(old->second);
    names_[name] = id;
  }

  void restart(Guest& guest) {
    if (known_.empty()) return;
    const auto from = some(random_, known_);
    const Status restarted = guest.restart(store_.store, from->first, from->second);
    ASSERT_TRUE(restarted) << restarted.error().message;
  }

  // Whoever runs on what it was before goes on with that.
  void rewrite(LayerForm form) {
    if (known_.empty()) return;
    const auto done = compact(store_.store, some(random_, known_)->first,
                              {.memory = pick(random_, 0, 3) > 0, .disk = pick(random_, 0, 3) > 0, .form = form});
    ASSERT_TRUE(done) << done.error().message;
  }

  // To a snapshot of its own, which has nothing in common with the one it was.
  void carry() {
    if (known_.empty()) return;
    const auto from = some(random_, known_);
    if (from->second.memory.size() % (1 << 20) != 0) return;
    const auto archive = testing::archive_of(store_.store, from->first);
    ASSERT_TRUE(archive) << archive.error().message;
    const SnapshotId id = SnapshotId::random();
    const auto manifest = testing::import_archive(store_.store, id, *archive);
    ASSERT_TRUE(manifest) << manifest.error().message;
    known_[id] = from->second;
  }

  void remove() {
    if (!known_.empty()) forget(some(random_, known_)->first);
  }
  void forget(SnapshotId id) {
    ASSERT_TRUE(store_.store.remove(id));
    known_.erase(id);
  }

  void collect() {
    std::vector<BlockMap> roots;
    for (const auto& guest : guests_) {
      for (BlockMap& map : guest->roots()) roots.push_back(std::move(map));
    }
    const auto stats = store_.store.collect(roots);
    ASSERT_TRUE(stats) << stats.error().message;
    store_.expect_nothing_else(roots);
  }

  Random random_;
  FaultyStore store_;
  std::vector<std::unique_ptr<Guest>> guests_;
  std::map<SnapshotId, FaultyStore::Content> known_;
  std::map<std::string, SnapshotId> names_;
};

void play(uint64_t seed, uint64_t steps) {
  SCOPED_TRACE("seed " + std::to_string(seed));
  History history(seed);
  for (uint64_t step = 0; step < steps && !::testing::Test::HasFailure(); ++step) {
    SCOPED_TRACE("step " + std::to_string(step));
    history.step();
    history.check();
  }
}

TEST(PropertyTest, EverySnapshotIsWhatTheModelSays) {
  if (const uint64_t steps = setting("STASIS_PROPERTY_STEPS", 0))
    return play(setting("STASIS_PROPERTY_SEED", 0), steps);
  for (uint64_t seed = 1; seed <= 12; ++seed) play(seed, 40);
}

// Guests in threads of their own, one store and one collector that never waits.
class Concurrent {
 public:
  // One guest's life.
  void live(uint64_t seed, uint64_t steps) {
    Random random(seed);
    Guest guest(store_, random, kSize, kSize);
    stand_on(seed, guest);
    for (uint64_t step = 0; step < steps && !::testing::Test::HasFailure(); ++step) {
      switch (pick(random, 0, 4)) {
        case 0:
          restart(random, seed, guest);
          break;
        case 1:
          remove(random);
          break;
        default:
          snapshot(seed, guest);
      }
    }
  }

  void collect_until(const std::atomic<bool>& done) {
    while (!done) {
      const auto collected = store_.healthy.collect_with([&]() -> Result<std::vector<BlockMap>> {
        const std::lock_guard lock(mutex_);
        std::vector<BlockMap> roots;
        for (const auto& [guest, maps] : roots_) roots.insert(roots.end(), maps.begin(), maps.end());
        return roots;
      });
      // Who uses the store goes first; and a snapshot that was listed may have been removed meanwhile, or be without
      // its layers only if the collector is wrong.
      EXPECT_TRUE(collected || collected.error().code == Code::kAborted) << collected.error().message;
      std::this_thread::yield();
    }
  }

  void check_at_the_end() {
    store_.expect_listed_snapshots_whole(known_);
    EXPECT_EQ(store_.healthy.list()->size(), known_.size());
    ASSERT_TRUE(store_.healthy.collect(std::vector<BlockMap>{}));
    store_.expect_listed_snapshots_whole(known_);
    store_.expect_nothing_else();
  }

 private:
  static constexpr uint64_t kSize = 60 * kBlockSize;

  // As a supervisor does: its roots are written down before the lock is let go that keeps a collection away.
  void stand_on(uint64_t who, const Guest& guest) {
    const std::lock_guard lock(mutex_);
    roots_[who] = guest.roots();
  }

  void snapshot(uint64_t who, Guest& guest) {
    guest.change();
    const SnapshotId id = SnapshotId::random();
    const auto held = store_.healthy.lock_shared();
    ASSERT_TRUE(held);
    const Status taken = guest.snapshot(store_.healthy, id);
    ASSERT_TRUE(taken) << taken.error().message;
    stand_on(who, guest);
    const std::lock_guard lock(mutex_);
    known_[id] = guest.content();
  }

  void restart(Random& random, uint64_t who, Guest& guest) {
    SnapshotId id;
    FaultyStore::Content content;
    {
      const std::lock_guard lock(mutex_);
      if (known_.empty()) return;
      const auto from = some(random, known_);
      id = from->first;
      content = from->second;
    }
    {
      const auto held = store_.healthy.lock_shared();
      ASSERT_TRUE(held);
      const Status restarted = guest.restart(store_.healthy, id, content);
      if (!restarted) {
        EXPECT_EQ(restarted.error().code, Code::kNotFound) << restarted.error().message;
        return;
      }
      stand_on(who, guest);
    }
    // Nobody holds the lock now; the roots alone keep the layers.
    const auto space = AddressSpace::open(store_.quiet, store_.healthy.layers_dir(), guest.roots().front());
    ASSERT_TRUE(space) << space.error().message;
    EXPECT_TRUE(testing::read_all(**space) == content.memory);
  }

  void remove(Random& random) {
    SnapshotId id;
    {
      const std::lock_guard lock(mutex_);
      if (known_.empty()) return;
      id = some(random, known_)->first;
      known_.erase(id);
    }
    const Status removed = store_.healthy.remove(id);
    EXPECT_TRUE(removed) << removed.error().message;
  }

  FaultyStore store_;
  std::mutex mutex_;
  std::map<SnapshotId, FaultyStore::Content> known_;
  std::map<uint64_t, std::vector<BlockMap>> roots_;
};

TEST(PropertyTest, CollectionsBesideTheLifeOfGuestsTakeNothingThatIsNeeded) {
  const uint64_t seed = setting("STASIS_PROPERTY_SEED", 0) + 1;
  SCOPED_TRACE("seed " + std::to_string(seed));
  Concurrent concurrent;
  std::atomic<bool> done = false;
  std::thread collector([&] { concurrent.collect_until(done); });
  std::vector<std::thread> guests;
  for (uint64_t i = 0; i < 2; ++i) {
    guests.emplace_back([&, i] { concurrent.live(seed * 10 + i, 100 + setting("STASIS_PROPERTY_STEPS", 0) / 4); });
  }
  for (std::thread& guest : guests) guest.join();
  done = true;
  collector.join();
  concurrent.check_at_the_end();
}

}  // namespace
}  // namespace stasis::snapshot
