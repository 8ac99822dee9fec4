#include "snapshot/joined_writes.h"

#include <algorithm>

namespace stasis::snapshot {

Status JoinedWrites::write(uint64_t offset, std::span<const std::byte> data) {
  if (offset != offset_ + waiting_.size()) STASIS_TRY(flush());
  while (!data.empty()) {
    const auto piece = data.first(std::min(data.size(), kHugePageSize - offset % kHugePageSize));
    STASIS_TRY(write_within_page(offset, piece));
    offset += piece.size();
    data = data.subspan(piece.size());
  }
  return {};
}

Status JoinedWrites::write_within_page(uint64_t offset, std::span<const std::byte> data) {
  if (waiting_.empty()) {
    const bool may_become_whole = offset % kHugePageSize == 0 && data.size() < kHugePageSize;
    if (!may_become_whole) return sink_(offset, data);
    offset_ = offset;
    waiting_.reserve(kHugePageSize);
  }
  waiting_.insert(waiting_.end(), data.begin(), data.end());
  return waiting_.size() == kHugePageSize ? flush() : Status{};
}

Status JoinedWrites::flush() {
  if (waiting_.empty()) return {};
  STASIS_TRY(sink_(offset_, waiting_));
  waiting_.clear();
  return {};
}

}  // namespace stasis::snapshot
