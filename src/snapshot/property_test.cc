// A random history against a model: writes, zeroing, discards, snapshots of a tree of guests, removals, collections,
// the store opened anew. After each step every snapshot is what the model says, byte by byte.
#include <gtest/gtest.h>

#include "snapshot/testing/faulty_store.h"

namespace stasis::snapshot {
namespace {

using testing::Bytes;
using testing::Disk;
using testing::FaultyStore;
using testing::Memory;
using testing::pick;
using testing::Random;
using testing::random_bytes;

class History {
 public:
  explicit History(uint64_t seed)
      : random_(seed),
        memory_size_(pick(random_, 1, 120) * kBlockSize),
        disk_size_(pick(random_, 1, 120) * kBlockSize),
        memory_(std::make_unique<Memory>(memory_size_)),
        memory_map_(BlockMap::zeros(memory_size_).value()),
        disk_(std::make_unique<Disk>(store_, disk_size_)) {}

  void step() {
    switch (pick(random_, 0, 9)) {
      case 0:
        return restore();
      case 1:
        return remove();
      case 2:
        return collect();
      case 3:
        store_.store = Store::open(store_.faulty, store_.root).value();
        return;
      default:
        change();
        return snapshot();
    }
  }
  void check() { store_.expect_listed_snapshots_whole(known_); }

 private:
  // A run of blocks of an address space of `size` bytes.
  Range some_blocks(uint64_t size) {
    const uint64_t count = size / kBlockSize;
    const uint64_t first = pick(random_, 0, count - 1);
    return testing::blocks(first, pick(random_, 1, std::min<uint64_t>(count - first, 20)));
  }

  void change() {
    for (uint64_t i = pick(random_, 0, 6); i > 0; --i) {
      const Range range = some_blocks(memory_size_);
      touched_.push_back(range);
      if (pick(random_, 0, 2) == 0) {
        memory_->zero(range);
      } else {
        memory_->write(range.offset, random_bytes(random_, range.length));
      }
    }
    for (uint64_t i = pick(random_, 0, 6); i > 0; --i) {
      const Range range = some_blocks(disk_size_);
      const uint64_t first = range.offset / kBlockSize;
      if (pick(random_, 0, 2) == 0) {
        disk_->discard(first, range.length / kBlockSize);
      } else {
        disk_->write(first, random_bytes(random_, range.length));
      }
    }
  }

  // What was touched, over-reported by some blocks that were not: sorted and disjoint.
  std::vector<Range> candidates() {
    if (pick(random_, 0, 3) == 0) touched_.push_back(some_blocks(memory_size_));
    std::vector<bool> named(memory_size_ / kBlockSize);
    for (const Range& range : touched_) {
      for (uint64_t at = range.offset; at < range.end(); at += kBlockSize) named[at / kBlockSize] = true;
    }
    std::vector<Range> ranges;
    for (uint64_t block = 0; block < named.size(); ++block) {
      if (named[block]) ranges.push_back(testing::blocks(block, 1));
    }
    return ranges;
  }

  void snapshot() {
    const SnapshotId id = SnapshotId::random();
    const BlockMap::Metadata before = memory_map_.metadata();
    known_[id] = {memory_->content, disk_->content};
    const Status taken = testing::snapshot_all(store_.store, id, *memory_, memory_map_, *disk_, candidates());
    ASSERT_TRUE(taken) << taken.error().message;
    touched_.clear();
    EXPECT_EQ(memory_map_.metadata().generation, before.id.is_nil() ? 0 : before.generation + 1);
    EXPECT_EQ(memory_map_.metadata().base_id, before.id);
    EXPECT_EQ(store_.store.list()->size(), known_.size());
  }

  SnapshotId some_snapshot() {
    auto at = known_.begin();
    std::advance(at, static_cast<ptrdiff_t>(pick(random_, 0, known_.size() - 1)));
    return at->first;
  }

  // The guest goes on from another snapshot.
  void restore() {
    if (known_.empty()) return;
    const SnapshotId id = some_snapshot();
    const Manifest manifest = store_.store.load(id).value();
    memory_map_ = store_.store.read_map(id, *manifest.memory_map).value();
    memory_ = std::make_unique<Memory>(memory_size_);
    memory_->write(0, known_[id].memory);
    touched_.clear();
    disk_.reset();
    disk_ = std::make_unique<Disk>(store_, store_.store.read_map(id, *manifest.disk_map).value(), known_[id].disk);
  }

  void remove() {
    if (known_.empty()) return;
    const SnapshotId id = some_snapshot();
    ASSERT_TRUE(store_.store.remove(id));
    known_.erase(id);
  }

  void collect() {
    const std::vector<BlockMap> roots{memory_map_, disk_->map};
    const auto stats = store_.store.collect(roots);
    ASSERT_TRUE(stats) << stats.error().message;
    store_.expect_nothing_else(roots);
  }

  Random random_;
  FaultyStore store_;
  const uint64_t memory_size_;
  const uint64_t disk_size_;
  std::unique_ptr<Memory> memory_;
  BlockMap memory_map_;
  std::unique_ptr<Disk> disk_;
  std::vector<Range> touched_;
  std::map<SnapshotId, FaultyStore::Content> known_;
};

TEST(PropertyTest, EverySnapshotIsWhatTheModelSays) {
  for (uint64_t seed = 1; seed <= 15; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    History history(seed);
    for (int step = 0; step < 40; ++step) {
      SCOPED_TRACE("step " + std::to_string(step));
      history.step();
      history.check();
      if (::testing::Test::HasFailure()) return;
    }
  }
}

}  // namespace
}  // namespace stasis::snapshot
