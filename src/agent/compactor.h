// Compacts the store in the background: a thread of its own with the lowest priority and a rate, one snapshot at a
// time, what is started most often first. What cannot be compacted is logged once and left alone.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <thread>

#include "base/poll.h"
#include "snapshot/compact_plan.h"

namespace stasis::agent {

struct CompactorOptions {
  // Read and written together. A disk that is bought for this does 500 MB/s and more: a resume beside it has nine
  // tenths.
  uint64_t bytes_per_second = 50'000'000;
  // Looking for work reads every block map of the store.
  Milliseconds look_again{60'000};
  // A pause must find room: compaction never takes the last of it.
  uint64_t free_afterwards = uint64_t{4} << 30;
};

class Compactor {
 public:
  // `roots`: as for a collection. `compacted` is called after each snapshot that was rewritten.
  static Result<std::unique_ptr<Compactor>> start(const snapshot::Store& store, snapshot::Store::RootsFunction roots,
                                                  std::function<void()> compacted, CompactorOptions options = {});
  ~Compactor();
  Compactor(const Compactor&) = delete;
  Compactor& operator=(const Compactor&) = delete;

  // Returns at once; what is under way ends soon.
  void stop() { stop_.set(); }
  // A sandbox was started from this snapshot.
  void count_start(snapshot::SnapshotId id);

  // Now and without a rate, in the calling thread: one snapshot, or everything that is worth it. `cancel_fd` ends it.
  Result<snapshot::CompactResult> compact(snapshot::SnapshotId id, int cancel_fd);
  // Into packed layers, without those that another snapshot, an image or a sandbox needs too: a copy of them would give
  // nothing back.
  Result<snapshot::CompactResult> pack(snapshot::SnapshotId id, int cancel_fd);
  Result<std::vector<snapshot::CompactPlan>> plan();
  Result<snapshot::CompactResult> compact(const snapshot::CompactPlan& plan, RateLimit limit);

 private:
  Compactor(const snapshot::Store& store, snapshot::Store::RootsFunction roots, std::function<void()> compacted,
            CompactorOptions options, Event stop);
  Result<snapshot::CompactResult> run_one(snapshot::SnapshotId id, snapshot::CompactOptions options);
  void run();
  bool compact_next();
  bool has_room(const snapshot::CompactPlan& plan) const;

  const snapshot::Store& store_;
  const snapshot::Store::RootsFunction roots_;
  const std::function<void()> compacted_;
  const CompactorOptions options_;
  Event stop_;
  std::mutex mutex_;
  std::map<snapshot::SnapshotId, uint64_t> starts_;
  std::set<snapshot::SnapshotId> failed_;  // run() only
  std::thread thread_;
};

}  // namespace stasis::agent
