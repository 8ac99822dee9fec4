#include "guest/output_log.h"

#include <algorithm>

namespace stasis::guest {

void OutputLog::append(Stream stream, std::string_view data) {
  if (data.empty()) return;
  chunks_.push_back({stream, end_, std::string(data)});
  end_ += data.size();
  // What an attached reader has still to get stays, even if chunks of uneven sizes go a little over the capacity.
  uint64_t unread = end_;
  for (const auto& [id, position] : readers_) unread = std::min(unread, position);
  while (chunks_.size() > 1 && stored_bytes() - chunks_.front().data.size() >= kCapacity &&
         chunks_.front().end() <= unread) {
    drop_front();
  }
}

void OutputLog::drop_front() {
  begin_ = chunks_.front().end();
  chunks_.pop_front();
}

bool OutputLog::room() const {
  for (const auto& [id, position] : readers_) {
    if (end_ - position >= kCapacity) return false;
  }
  return true;
}

OutputLog::ReaderId OutputLog::attach() {
  ReaderId id = next_reader_++;
  readers_[id] = std::max(delivered_, begin_);
  return id;
}

std::optional<OutputChunk> OutputLog::next(ReaderId reader) {
  auto at = readers_.find(reader);
  if (at == readers_.end()) return std::nullopt;
  uint64_t position = std::max(at->second, begin_);
  auto after = std::upper_bound(chunks_.begin(), chunks_.end(), position,
                                [](uint64_t value, const OutputChunk& chunk) { return value < chunk.end(); });
  if (after == chunks_.end()) return std::nullopt;
  OutputChunk chunk = *after;
  if (position > chunk.position) {
    chunk.data.erase(0, position - chunk.position);
    chunk.position = position;
  }
  at->second = chunk.end();
  return chunk;
}

void OutputLog::set_delivered(uint64_t position) { delivered_ = std::max(delivered_, std::min(position, end_)); }

void OutputLog::detach(ReaderId reader) { readers_.erase(reader); }

void OutputLog::drop_delivered() {
  while (!chunks_.empty() && chunks_.front().end() <= delivered_) drop_front();
}

}  // namespace stasis::guest
