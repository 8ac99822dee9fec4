#include "base/piecework.h"

namespace stasis {

void Piecework::run(size_t count, const Piece& piece) {
  std::unique_lock lock(mutex_);
  piece_ = &piece;
  count_ = unfinished_ = count;
  next_ = 0;
  changed_.notify_all();
  take(lock);
  changed_.wait(lock, [this] { return unfinished_ == 0; });
}

void Piecework::help() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return next_ < count_ || closed_; });
    if (next_ == count_) return;
    take(lock);
  }
}

void Piecework::close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  changed_.notify_all();
}

void Piecework::take(std::unique_lock<std::mutex>& lock) {
  while (next_ < count_) {
    const size_t number = next_++;
    const Piece& piece = *piece_;
    lock.unlock();
    piece(number);
    lock.lock();
    if (--unfinished_ == 0) changed_.notify_all();
  }
}

}  // namespace stasis
