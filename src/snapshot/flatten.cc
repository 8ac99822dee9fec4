#include "snapshot/flatten.h"

#include <algorithm>
#include <cstring>

namespace stasis::snapshot {
namespace {

// Frames of one layer that are read at once: the pieces of a window can be spread over more.
constexpr uint64_t kMaxRead = 2 << 20;

uint64_t frame_floor(uint64_t offset) { return offset / kFrameSize * kFrameSize; }
uint64_t frame_ceiling(uint64_t offset) { return (offset + kFrameSize - 1) / kFrameSize * kFrameSize; }

}  // namespace

Flattener::Flattener(const AddressSpace& space, RateLimit& limit, uint64_t window)
    : space_(space), limit_(limit), window_(window), out_(window) {
  for (const LayerId id : space.map().layers()) layers_[id.uuid] = space.layer(id);
}

Status Flattener::run(uint64_t from, const Sink& sink) {
  const uint64_t size = space_.size();
  for (uint64_t at = from; at < size;) {
    const Extent extent = space_.map().find(at);
    if (extent.is_zero() && extent.end() >= size) break;
    if (extent.is_zero() && extent.end() / window_ > at / window_) {
      at = extent.end() / window_ * window_;
      continue;
    }
    STASIS_TRY(window({at, std::min(window_, size - at)}, sink));
    at += window_;
  }
  return {};
}

Status Flattener::window(Range range, const Sink& sink) {
  collect(range);
  uint64_t live = 0;
  for (const Range& run : live_) live += run.length;
  const uint64_t before = read_bytes_;
  for (size_t first = 0; first < pieces_.size();) {
    size_t last = first + 1;
    uint64_t end = frame_ceiling(pieces_[first].layer_offset + pieces_[first].length);
    const uint64_t limit = frame_floor(pieces_[first].layer_offset) + kMaxRead;
    for (; last < pieces_.size(); ++last) {
      const Piece& next = pieces_[last];
      const uint64_t next_end = frame_ceiling(next.layer_offset + next.length);
      if (next.layer != pieces_[first].layer || frame_floor(next.layer_offset) > end || next_end > limit) break;
      end = std::max(end, next_end);
    }
    STASIS_TRY(read(first, last));
    first = last;
  }
  STASIS_TRY(limit_.take(read_bytes_ - before + live));
  return hand_over(range, sink);
}

void Flattener::collect(Range range) {
  pieces_.clear();
  live_.clear();
  for (uint64_t at = range.offset; at < range.end();) {
    const Extent extent = space_.map().find(at);
    const uint64_t end = std::min(extent.end(), range.end());
    if (!extent.is_zero()) {
      pieces_.push_back(
          {layers_.at(extent.layer.uuid), extent.layer_offset + (at - extent.offset), end - at, at - range.offset});
      append_range(live_, {at, end - at});
    }
    at = end;
  }
  std::sort(pieces_.begin(), pieces_.end(), [](const Piece& a, const Piece& b) {
    return a.layer != b.layer ? std::less<Layer*>()(a.layer, b.layer) : a.layer_offset < b.layer_offset;
  });
}

Status Flattener::read(size_t first, size_t last) {
  Layer& layer = *pieces_[first].layer;
  const uint64_t begin = frame_floor(pieces_[first].layer_offset);
  uint64_t end = 0;
  for (size_t i = first; i < last; ++i) end = std::max(end, pieces_[i].layer_offset + pieces_[i].length);
  end = std::min(frame_ceiling(end), layer.size());
  scratch_.resize(std::max<size_t>(scratch_.size(), end - begin));
  STASIS_TRY(layer.read(begin, std::span(scratch_).first(end - begin)));
  read_bytes_ += end - begin;
  for (size_t i = first; i < last; ++i) {
    const Piece& piece = pieces_[i];
    std::memcpy(out_.data() + piece.at, scratch_.data() + (piece.layer_offset - begin), piece.length);
  }
  return {};
}

Status Flattener::hand_over(Range range, const Sink& sink) const {
  for (const Range& run : live_) {
    STASIS_TRY(sink(run.offset, std::span(out_).subspan(run.offset - range.offset, run.length)));
  }
  return {};
}

}  // namespace stasis::snapshot
