// Work in numbered pieces, of which whoever has time takes the next: the thread that needs it done, and any that come
// to help. All functions may be called by several threads, run() by one at a time.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <functional>
#include <mutex>

namespace stasis {

class Piecework {
 public:
  using Piece = std::function<void(size_t number)>;

  // Does each of the pieces 0 to `count` - 1 once, in this thread and in those that help: in no order, `piece` being
  // called by several at once. All are done when this returns.
  void run(size_t count, const Piece& piece);
  // Takes part in what is being run, and in what will be, until close().
  void help();
  // Nothing more will be run.
  void close();

 private:
  void take(std::unique_lock<std::mutex>& lock);
  std::mutex mutex_;
  std::condition_variable changed_;
  const Piece* piece_ = nullptr;  // of what is being run
  size_t count_ = 0;
  size_t next_ = 0;  // the first that nobody has taken
  size_t unfinished_ = 0;
  bool closed_ = false;
};

}  // namespace stasis
