// Reads a memory in order, in chunks, by a thread of its own that is some chunks ahead of who takes them: to read a
// page of another process is a third of what a capture does with it, and takes a second processor. The taker and the
// thread use the memory's FileSystem at the same time. next() is for one thread.
#pragma once

#include <array>
#include <condition_variable>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "base/memory_source.h"

namespace stasis::snapshot {

class ReadAhead {
 public:
  struct Chunk {
    std::vector<Range> pieces;
    std::vector<std::byte> bytes;  // of all pieces, one behind the other; then anything
  };

  // `ranges` (sorted, disjoint) in chunks as in_chunks() makes them, of `size` bytes. All three must outlive it. Throws
  // std::system_error where there is no thread to be had.
  ReadAhead(FileSystem& fs, const MemorySource& memory, std::span<const Range> ranges, uint64_t size);
  // What was read and not taken is dropped.
  ~ReadAhead();
  ReadAhead(const ReadAhead&) = delete;
  ReadAhead& operator=(const ReadAhead&) = delete;

  // The next chunk, good until the next call; null behind the last. An error is that of reading it, and the last thing
  // that comes.
  Result<const Chunk*> next();

 private:
  // 1 MiB of 128 KiB: stays in the cache that both processors share.
  static constexpr size_t kChunks = 8;
  Status read_all();
  // Null: nobody wants more.
  Chunk* free_chunk();

  FileSystem& fs_;
  const MemorySource& memory_;
  std::span<const Range> ranges_;
  uint64_t size_;
  std::array<Chunk, kChunks> chunks_;  // a ring: chunk n is in place n % kChunks
  std::mutex mutex_;
  std::condition_variable changed_;
  uint64_t read_ = 0;   // chunks
  uint64_t taken_ = 0;  // of these; the last of them is in use
  bool closed_ = false;
  bool done_ = false;
  Status end_;  // once done
  std::thread thread_;
};

}  // namespace stasis::snapshot
