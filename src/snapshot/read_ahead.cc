#include "snapshot/read_ahead.h"

#include "base/sync_point.h"
#include "snapshot/ranges.h"

namespace stasis::snapshot {

ReadAhead::ReadAhead(FileSystem& fs, const MemorySource& memory, std::span<const Range> ranges, uint64_t size)
    : fs_(fs), memory_(memory), ranges_(ranges), size_(size) {
  sync_point("read_ahead.start");
  for (Chunk& chunk : chunks_) chunk.bytes.resize(size);
  thread_ = std::thread([this] {
    Status end = read_all();
    const std::lock_guard lock(mutex_);
    end_ = std::move(end);
    done_ = true;
    changed_.notify_all();
  });
}

ReadAhead::~ReadAhead() {
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    changed_.notify_all();
  }
  thread_.join();
}

Status ReadAhead::read_all() {
  return in_chunks(ranges_, size_, [this](std::span<const Range> pieces) -> Status {
    Chunk* chunk = free_chunk();
    if (chunk == nullptr) return fail(Code::kCancelled, "nobody wants the rest");
    chunk->pieces.assign(pieces.begin(), pieces.end());
    sync_point("read_ahead.read");
    STASIS_TRY(memory_.read(fs_, pieces, std::span(chunk->bytes).first(total_length(pieces))));
    const std::lock_guard lock(mutex_);
    if (++read_ == taken_ + 1) changed_.notify_all();
    return {};
  });
}

// Once all places are full it waits until half of them are free: a thread that is woken costs as much as 10 pages.
ReadAhead::Chunk* ReadAhead::free_chunk() {
  std::unique_lock lock(mutex_);
  const auto in_use = [this] { return read_ - taken_ + 1; };
  if (in_use() >= kChunks) changed_.wait(lock, [&] { return closed_ || in_use() <= kChunks / 2; });
  return closed_ ? nullptr : &chunks_[read_ % kChunks];
}

Result<const ReadAhead::Chunk*> ReadAhead::next() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return read_ > taken_ || done_; });
  if (read_ == taken_) {
    if (!end_) return fail(Error(end_.error()));
    return nullptr;
  }
  const Chunk* chunk = &chunks_[taken_++ % kChunks];
  if (read_ - taken_ + 1 == kChunks / 2) changed_.notify_all();
  return chunk;
}

}  // namespace stasis::snapshot
