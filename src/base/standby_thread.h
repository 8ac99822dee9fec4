// A second thread for work that somebody stands still for, awake when the work comes: to wake a sleeping one takes from
// 50 us to 4 ms on a busy machine, longer than it would have helped. It is started ahead and looks for its first work
// without a break for some milliseconds; after both it sleeps.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <thread>

namespace stasis {

class StandbyThread {
 public:
  // None if the machine has only one processor, or no thread can be made.
  static std::unique_ptr<StandbyThread> start();
  StandbyThread(const StandbyThread&) = delete;
  StandbyThread& operator=(const StandbyThread&) = delete;
  ~StandbyThread();

  // Calls `work` here and, if that thread comes in time, there as well; returns when both calls are over. So `work`
  // takes the next piece of what is to be done until there is none. One caller at a time.
  void share(const std::function<void()>& work);

 private:
  enum class State : int { kNone, kOffered, kTaken, kOver, kEnding };
  StandbyThread() = default;
  void run();
  void look_for_work();

  std::atomic<State> state_ = State::kNone;
  const std::function<void()>* work_ = nullptr;
  std::thread thread_;
};

}  // namespace stasis
