// Which frames are wanted, and in what order they are fetched: the part of the FrameFetcher that decides, without
// threads and without a clock. A frame is in it once, whoever wants it and how often (single flight); what a guest
// waits for goes first. What fails is tried again after a pause that doubles; what is waited for and has not come by
// its deadline has failed, even if somebody is still fetching it. Frames that nobody waits for yet are bounded in
// number; those that are waited for by the caller, who has a fault for each. Not thread-safe.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/poll.h"
#include "snapshot/frame_source.h"

namespace stasis::snapshot {

// The most urgent first.
enum class FetchUrgency : uint8_t {
  kDemand,      // a guest waits for it
  kNear,        // beside what a guest has touched
  kAhead,       // expected to be needed
  kBackground,  // some time
};

struct FetchLimits {
  // A medium that has a hiccup recovers within milliseconds.
  int attempts = 3;
  Milliseconds first_pause{20};  // before the second attempt, and twice as long before each one after that
  Milliseconds longest_pause{500};
  Milliseconds deadline{30'000};  // of what is waited for
  size_t most_unwaited = 16;      // of each urgency but kDemand
};

struct Fetched {
  FrameRef frame;
  FetchUrgency urgency;  // the most urgent that anybody has asked for
  Status status;         // an error: the last attempt's, or kDeadlineExceeded
};

class FetchQueue {
 public:
  using Clock = Deadline::Clock;
  using Time = Clock::time_point;

  explicit FetchQueue(FetchLimits limits = {}) : limits_(limits) {}

  // False if there are too many of this urgency already; those in it will be told. A frame that is in it becomes as
  // urgent as it is wanted now.
  bool want(FrameRef frame, FetchUrgency urgency, Time now);
  // The frame to fetch now: whoever takes it tells finish(). nullopt: nothing until next_start(), or the next want().
  std::optional<FrameRef> start(Time now);
  size_t unstarted() const;                        // frames that nobody is fetching
  size_t size() const { return entries_.size(); }  // those, and those that somebody is fetching
  // Time::max(): nothing waits.
  Time next_start() const;
  void finish(FrameRef frame, Status status, Time now);
  // One that nobody is fetching has failed, without being tried.
  void give_up(FrameRef frame, Error error);
  // What is late has failed.
  void expire(Time now);
  Time next_deadline() const;  // Time::max(): none
  bool has_settled() const { return !settled_.empty(); }
  // What has been fetched, or has failed for good, since the last call. It is then no longer in the queue.
  std::vector<Fetched> take() { return std::exchange(settled_, {}); }

 private:
  struct Entry {
    FrameRef frame;
    FetchUrgency urgency;
    bool fetching = false;
    bool given_up = false;     // late, and told so: only whoever fetches it still has to come back
    int attempts = 0;          // that have failed
    std::string trouble = {};  // of the last one
    Time not_before{};
    Time deadline = Time::max();
  };
  Entry* find(FrameRef frame);
  void raise(Entry& entry, FetchUrgency urgency, Time now) const;
  void settle(size_t index, Status status);
  Milliseconds pause_after(int attempts) const;

  FetchLimits limits_;
  std::vector<Entry> entries_;  // in the order in which they were wanted
  std::vector<Fetched> settled_;
};

}  // namespace stasis::snapshot
