#include "snapshot/frame_fetcher.h"

#include <condition_variable>
#include <mutex>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include "base/sync_point.h"

namespace stasis::snapshot {
namespace {

constexpr Milliseconds kCloseWait{1'000};

}  // namespace

struct FrameFetcher::State : std::enable_shared_from_this<State> {
  State(std::shared_ptr<const FrameSource> frames, FetchLimits limits, StartThread start, Event event)
      : source(std::move(frames)), start_thread(std::move(start)), settled(std::move(event)), queue(limits) {}

  void find_a_thread_for(FrameRef frame);
  void work();
  void wait_for_work(std::unique_lock<std::mutex>& lock);
  void tell() const {
    if (queue.has_settled()) settled.set();
  }

  const std::shared_ptr<const FrameSource> source;
  const StartThread start_thread;
  const Event settled;
  std::mutex mutex;
  std::condition_variable changed;
  FetchQueue queue;
  bool closing = false;
  size_t threads = 0;
  size_t idle = 0;  // of them
};

// One more if all are busy. Where there can be no more, those that there are fetch one frame after the other.
void FrameFetcher::State::find_a_thread_for(FrameRef frame) {
  if (queue.unstarted() <= idle || threads >= kThreads) return;
  ++threads;
  try {
    start_thread([state = shared_from_this()] { state->work(); });
  } catch (const std::system_error& error) {
    if (--threads > 0) return;
    const std::string why = "there is no thread to fetch it with: " + error.code().message();
    queue.give_up(frame, {Code::kResourceExhausted, source->describe(frame) + ": " + why});
    tell();
  }
}

void FrameFetcher::State::work() {
  std::unique_lock lock(mutex);
  while (!closing) {
    const auto frame = queue.start(FetchQueue::Clock::now());
    if (!frame) {
      wait_for_work(lock);
      continue;
    }
    lock.unlock();
    Status status = source->load(*frame);
    lock.lock();
    queue.finish(*frame, std::move(status), FetchQueue::Clock::now());
    tell();
  }
  --threads;
  changed.notify_all();
}

void FrameFetcher::State::wait_for_work(std::unique_lock<std::mutex>& lock) {
  ++idle;
  const auto next = queue.next_start();
  if (next == FetchQueue::Time::max()) {
    changed.wait(lock);
  } else {
    changed.wait_until(lock, next);
  }
  --idle;
}

void FrameFetcher::start_detached(std::function<void()> run) { std::thread(std::move(run)).detach(); }

FrameFetcher::FrameFetcher(std::shared_ptr<State> state) : state_(std::move(state)) {}

Result<std::unique_ptr<FrameFetcher>> FrameFetcher::create(std::shared_ptr<const FrameSource> source,
                                                           FetchLimits limits, StartThread start_thread) {
  STASIS_ASSIGN(Event settled, Event::create());
  auto state = std::make_shared<State>(std::move(source), limits, std::move(start_thread), std::move(settled));
  return std::unique_ptr<FrameFetcher>(new FrameFetcher(std::move(state)));
}

FrameFetcher::~FrameFetcher() {
  std::unique_lock lock(state_->mutex);
  state_->closing = true;
  state_->changed.notify_all();
  sync_point("frame_fetcher.closing");
  state_->changed.wait_for(lock, kCloseWait, [&] { return state_->threads == 0; });
}

bool FrameFetcher::want(FrameRef frame, FetchUrgency urgency) {
  const std::lock_guard lock(state_->mutex);
  if (!state_->queue.want(frame, urgency, FetchQueue::Clock::now())) return false;
  state_->find_a_thread_for(frame);
  state_->changed.notify_one();
  return true;
}

std::vector<Fetched> FrameFetcher::take() {
  const std::lock_guard lock(state_->mutex);
  state_->settled.clear();
  state_->queue.expire(FetchQueue::Clock::now());
  std::vector<Fetched> fetched = state_->queue.take();
  for (Fetched& one : fetched) {
    if (one.status || one.status.error().code != Code::kDeadlineExceeded) continue;
    one.status = fail(std::move(one.status).error().with_context(state_->source->describe(one.frame)));
  }
  return fetched;
}

int FrameFetcher::fd() const { return state_->settled.fd(); }

Deadline FrameFetcher::next_deadline() const {
  const std::lock_guard lock(state_->mutex);
  return Deadline::from(state_->queue.next_deadline());
}

size_t FrameFetcher::queue_length() const {
  const std::lock_guard lock(state_->mutex);
  return state_->queue.size();
}

}  // namespace stasis::snapshot
