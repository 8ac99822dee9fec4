// A guest with memory and disk that does at random what guests do, and beside it what both must hold.
#pragma once

#include "snapshot/testing/faulty_store.h"

namespace stasis::snapshot::testing {

class Guest {
 public:
  Guest(FaultyStore& store, Random& random, uint64_t memory_size, uint64_t disk_size)
      : store_(store),
        random_(random),
        memory_(std::make_unique<Memory>(memory_size)),
        memory_map_(BlockMap::zeros(memory_size).value()),
        disk_(std::make_unique<Disk>(store, disk_size)) {}

  void change() {
    for (uint64_t i = pick(random_, 0, 6); i > 0; --i) change_memory();
    for (uint64_t i = pick(random_, 0, 6); i > 0; --i) {
      const Range range = some_blocks(disk_->content.size());
      if (pick(random_, 0, 2) == 0) {
        disk_->discard(range.offset / kBlockSize, range.length / kBlockSize);
      } else {
        disk_->write(range.offset / kBlockSize, random_bytes(random_, range.length));
      }
    }
  }

  FaultyStore::Content content() const { return {memory_->content, disk_->content}; }
  std::vector<BlockMap> roots() const { return {memory_map_, disk_->map}; }

  // What was touched is told, and some that was not; what was given back is told as such and not read.
  Status snapshot(const Store& store, SnapshotId id) {
    if (pick(random_, 0, 3) == 0) mark(some_blocks(memory_->content.size()), State::kTouched);
    Status taken =
        snapshot_all(store, id, *memory_, memory_map_, *disk_, ranges(State::kTouched), ranges(State::kGivenBack));
    if (taken) states_.clear();
    return taken;
  }

  // Goes on from a snapshot, as the guest that it was taken of or as a clone. kNotFound if there is none any more.
  Status restart(const Store& store, SnapshotId id, const FaultyStore::Content& content) {
    STASIS_ASSIGN(const Manifest manifest, store.load(id));
    STASIS_ASSIGN(BlockMap memory_map, store.read_map(id, *manifest.memory_map));
    STASIS_ASSIGN(const BlockMap disk_map, store.read_map(id, *manifest.disk_map));
    memory_map_ = std::move(memory_map);
    memory_ = std::make_unique<Memory>(content.memory.size());
    memory_->write(0, content.memory);
    states_.clear();
    disk_ = std::make_unique<Disk>(store_, disk_map, content.disk);
    return {};
  }

 private:
  enum class State { kTouched, kGivenBack };

  Range some_blocks(uint64_t size) {
    const uint64_t count = size / kBlockSize;
    const uint64_t first = pick(random_, 0, count - 1);
    return blocks(first, pick(random_, 1, std::min<uint64_t>(count - first, 20)));
  }
  void change_memory() {
    const Range range = some_blocks(memory_->content.size());
    switch (pick(random_, 0, 3)) {
      case 0:
        memory_->zero(range);
        return mark(range, State::kTouched);
      case 1:  // what is read there from now on is zeros
        memory_->zero(range);
        return mark(range, State::kGivenBack);
      default:
        memory_->write(range.offset, random_bytes(random_, range.length));
        return mark(range, State::kTouched);
    }
  }
  void mark(Range range, State state) {
    for (uint64_t at = range.offset; at < range.end(); at += kBlockSize) states_[at / kBlockSize] = state;
  }
  std::vector<Range> ranges(State wanted) const {
    std::vector<Range> result;
    for (const auto& [block, state] : states_) {
      if (state == wanted) result.push_back(blocks(block, 1));
    }
    return result;
  }

  FaultyStore& store_;
  Random& random_;
  std::unique_ptr<Memory> memory_;
  BlockMap memory_map_;
  std::unique_ptr<Disk> disk_;
  std::map<uint64_t, State> states_;  // of blocks of memory since the last snapshot
};

}  // namespace stasis::snapshot::testing
