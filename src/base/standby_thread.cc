#include "base/standby_thread.h"

#include <immintrin.h>

#include <chrono>
#include <system_error>

namespace stasis {
namespace {

// As long as QEMU takes to stop its guest, ten times over.
constexpr std::chrono::milliseconds kAwake{5};

}  // namespace

std::unique_ptr<StandbyThread> StandbyThread::start() {
  if (std::thread::hardware_concurrency() < 2) return nullptr;
  std::unique_ptr<StandbyThread> standby(new StandbyThread);
  try {
    standby->thread_ = std::thread([&thread = *standby] { thread.run(); });
  } catch (const std::system_error&) {
    return nullptr;
  }
  return standby;
}

StandbyThread::~StandbyThread() {
  if (!thread_.joinable()) return;
  state_ = State::kEnding;
  state_.notify_one();
  thread_.join();
}

void StandbyThread::share(const std::function<void()>& work) {
  work_ = &work;
  state_ = State::kOffered;
  state_.notify_one();
  work();
  State offered = State::kOffered;
  if (state_.compare_exchange_strong(offered, State::kNone)) return;
  while (state_ == State::kTaken) state_.wait(State::kTaken);
  state_ = State::kNone;
}

void StandbyThread::run() {
  look_for_work();
  for (;;) {
    for (State seen = state_; seen == State::kNone || seen == State::kOver; seen = state_) state_.wait(seen);
    if (state_ == State::kEnding) return;
    State offered = State::kOffered;
    if (!state_.compare_exchange_strong(offered, State::kTaken)) continue;
    (*work_)();
    state_ = State::kOver;
    state_.notify_one();
  }
}

// Only until the first: whoever waited for that goes on with something else, for which it needs its processors.
void StandbyThread::look_for_work() {
  const auto asleep = std::chrono::steady_clock::now() + kAwake;
  while (state_ == State::kNone && std::chrono::steady_clock::now() < asleep) _mm_pause();
}

}  // namespace stasis
