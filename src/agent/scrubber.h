// Verifies the whole store slowly in the background, so that damage is known before a restore meets it: a thread of its
// own with the lowest priority and a rate, one pass over everything each period. Where it is stands in a file, so that
// a pass goes on behind its last layer when the agent was started again. Damage is logged as an error and kept for
// status(); nothing is ever removed for it.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>

#include "base/poll.h"
#include "base/rate_limit.h"
#include "snapshot/verify.h"

namespace stasis::agent {

struct ScrubOptions {
  // A terabyte in a day and a bit; a disk bought for this does fifty times as much.
  uint64_t bytes_per_second = 10'000'000;
  Milliseconds settle = std::chrono::minutes(10);  // after the start
  Milliseconds period = std::chrono::hours(7 * 24);
  std::function<void()> on_pass = [] {};  // a pass has ended; in the scrubber's thread
};

struct ScrubStatus {
  int64_t started_unix_ms = 0;   // of the newest pass; 0: there was none
  int64_t finished_unix_ms = 0;  // of the newest that came to its end
  bool under_way = false;        // a pass has begun and not ended
  uint64_t bytes = 0;            // checked by the newest pass
  snapshot::LayerId done;        // the layers up to this one, of the pass under way
  // Files, of the pass under way and of the last one that ended; at most 1,000 of each.
  std::set<std::string> damaged;
  std::set<std::string> damaged_before;
  // Both: what is not known to be whole again.
  std::set<std::string> all_damaged() const;
};

class Scrubber {
 public:
  static Result<std::unique_ptr<Scrubber>> start(const snapshot::Store& store, Path file, ScrubOptions options = {});
  ~Scrubber();
  Scrubber(const Scrubber&) = delete;
  Scrubber& operator=(const Scrubber&) = delete;

  // Returns at once; what is under way ends soon and goes on with the next start.
  void stop() { stop_.set(); }
  ScrubStatus status() const;

 private:
  Scrubber(const snapshot::Store& store, Path file, ScrubOptions options, Event stop);
  void run();
  Milliseconds until_next() const;
  Status pass();
  Status verify(std::span<const snapshot::SnapshotId> ids);
  void found(const snapshot::Damage& damage);
  void change(const std::function<void(ScrubStatus&)>& what);
  void save() const;

  const snapshot::Store& store_;
  const Path file_;
  const ScrubOptions options_;
  Event stop_;
  mutable std::mutex mutex_;
  ScrubStatus status_;
  std::thread thread_;
};

}  // namespace stasis::agent
