// What tests do at sync points (base/sync_point.h): run something there, or stop whoever comes.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "base/poll.h"
#include "base/sync_point.h"

namespace stasis::testing {

// Runs `action` at the point for as long as this object lives.
class AtPoint {
 public:
  AtPoint(std::string name, sync_points::Action action) : name_(std::move(name)) {
    sync_points::set(name_, std::move(action));
  }
  template <typename Value>
  static sync_points::Action on(std::function<void(Value&)> action) {
    return [action = std::move(action)](void* value) { action(*static_cast<Value*>(value)); };
  }
  ~AtPoint() { sync_points::remove(name_); }
  AtPoint(const AtPoint&) = delete;
  AtPoint& operator=(const AtPoint&) = delete;

 private:
  std::string name_;
};

// Whoever reaches the point stops there, until go_on() or the end of this object.
class StopAt {
 public:
  explicit StopAt(std::string name)
      : gate_(std::make_shared<Gate>()), at_(std::move(name), [gate = gate_](void*) { gate->pass(); }) {}
  ~StopAt() { go_on(); }
  StopAt(const StopAt&) = delete;
  StopAt& operator=(const StopAt&) = delete;

  // True once somebody is there; false if nobody came by the deadline.
  bool await(Deadline deadline = Deadline::after(Milliseconds(20'000))) {
    std::unique_lock lock(gate_->mutex);
    return gate_->changed.wait_until(lock, deadline.at(), [&] { return gate_->reached > 0; });
  }
  // From now on nobody stops there.
  void go_on() {
    const std::lock_guard lock(gate_->mutex);
    gate_->open = true;
    gate_->changed.notify_all();
  }

 private:
  struct Gate {
    std::mutex mutex;
    std::condition_variable changed;
    int reached = 0;
    bool open = false;

    void pass() {
      std::unique_lock lock(mutex);
      ++reached;
      changed.notify_all();
      changed.wait(lock, [&] { return open; });
    }
  };
  std::shared_ptr<Gate> gate_;  // outlives this object in the action of a thread that is just leaving
  AtPoint at_;
};

}  // namespace stasis::testing
