// Fetches frames from a FrameSource beside the thread that needs them, several at once (fetch_queue.h says in what
// order, how often and how long). Threads are started when there is something to fetch, so that who never waits for
// storage has none. One thread asks and takes; what it takes has been verified by the source.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "base/poll.h"
#include "snapshot/fetch_queue.h"

namespace stasis::snapshot {

class FrameFetcher {
 public:
  static constexpr size_t kThreads = 4;

  // Runs it in a thread of its own, or throws std::system_error where there can be none.
  using StartThread = std::function<void(std::function<void()>)>;
  static void start_detached(std::function<void()> run);

  static Result<std::unique_ptr<FrameFetcher>> create(std::shared_ptr<const FrameSource> source,
                                                      FetchLimits limits = {},
                                                      StartThread start_thread = start_detached);
  // What waits is dropped. A thread that is inside the source is waited for, 1 s; one that does not return from it (a
  // device that hangs) is left behind, with a share in all that it uses.
  ~FrameFetcher();
  FrameFetcher(const FrameFetcher&) = delete;
  FrameFetcher& operator=(const FrameFetcher&) = delete;

  // As FetchQueue::want(). On a host that has no thread left the frame fails with kResourceExhausted, unless threads of
  // before can fetch it.
  bool want(FrameRef frame, FetchUrgency urgency);
  // What has been fetched or has failed since the last call, also by being late: to be called when fd() is readable and
  // when next_deadline() has passed. Errors name the frame.
  std::vector<Fetched> take();
  int fd() const;
  Deadline next_deadline() const;
  // Frames that wait to be fetched or are being fetched. Any thread.
  size_t queue_length() const;

 private:
  struct State;
  explicit FrameFetcher(std::shared_ptr<State> state);
  std::shared_ptr<State> state_;
};

}  // namespace stasis::snapshot
