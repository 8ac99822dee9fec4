#include "snapshot/diff.h"

#include <algorithm>
#include <cstring>

#include "snapshot/ranges.h"

namespace stasis::snapshot {
namespace {

constexpr uint64_t kPiece = 1 << 20;

// The extent of a map that holds `offset`, as far as it reaches; zeros behind the map's end, up to `size`.
Extent extent_at(const BlockMap& map, uint64_t offset, uint64_t size) {
  if (offset >= map.size()) return {offset, size - offset, {}, 0};
  Extent extent = map.find(offset);
  const uint64_t skipped = offset - extent.offset;
  extent.offset = offset;
  extent.length -= skipped;
  if (!extent.is_zero()) extent.layer_offset += skipped;
  return extent;
}

bool same_source(const Extent& a, const Extent& b) {
  if (a.is_zero() || b.is_zero()) return a.is_zero() && b.is_zero();
  return a.layer == b.layer && a.layer_offset == b.layer_offset;
}

class Comparison {
 public:
  Comparison(const AddressSpace& a, const AddressSpace& b, const std::function<bool()>& go_on)
      : a_(a), b_(b), go_on_(go_on), left_(kPiece), right_(kPiece) {}

  Result<SpaceDiff> run() {
    const uint64_t size = std::max(a_.size(), b_.size());
    for (uint64_t at = 0; at < size;) {
      const Extent left = extent_at(a_.map(), at, size);
      const Extent right = extent_at(b_.map(), at, size);
      const uint64_t length = std::min(left.length, right.length);
      if (same_source(left, right)) {
        result_.same_source_bytes += length;
      } else {
        STASIS_TRY(compare({at, length}, left.is_zero(), right.is_zero()));
      }
      at += length;
    }
    return std::move(result_);
  }

 private:
  Status compare(Range range, bool left_zero, bool right_zero) {
    while (range.length > 0) {
      const uint64_t here = std::min(range.length, kPiece);
      const auto left = std::span(left_).first(here);
      const auto right = std::span(right_).first(here);
      STASIS_TRY(fill(a_, range.offset, left, left_zero));
      STASIS_TRY(fill(b_, range.offset, right, right_zero));
      for (uint64_t i = 0; i < here; i += kBlockSize) {
        compare_block(range.offset + i, left.subspan(i, kBlockSize), right.subspan(i, kBlockSize));
      }
      result_.compared_bytes += here;
      range = {range.offset + here, range.length - here};
      if (!go_on_()) return fail(Code::kCancelled, "the comparison was ended");
    }
    return {};
  }

  static Status fill(const AddressSpace& space, uint64_t offset, std::span<std::byte> out, bool zero) {
    if (!zero) return space.read(offset, out);
    std::memset(out.data(), 0, out.size());
    return {};
  }

  void compare_block(uint64_t offset, std::span<const std::byte> left, std::span<const std::byte> right) {
    if (std::memcmp(left.data(), right.data(), kBlockSize) == 0) return;
    result_.changed_bytes += kBlockSize;
    if (is_zero(right)) result_.became_zero_bytes += kBlockSize;
    if (is_zero(left)) result_.became_data_bytes += kBlockSize;
    const bool continues = result_.runs > 0 && end_ == offset;
    end_ = offset + kBlockSize;
    if (!continues) ++result_.runs;
    if (result_.runs > kMaxRanges) return;
    if (continues) {
      result_.changed.back().length += kBlockSize;
    } else {
      result_.changed.push_back({offset, kBlockSize});
    }
  }

  const AddressSpace& a_;
  const AddressSpace& b_;
  const std::function<bool()>& go_on_;
  std::vector<std::byte> left_;
  std::vector<std::byte> right_;
  SpaceDiff result_;
  uint64_t end_ = 0;  // of the last run
};

}  // namespace

SourceRun source_run(const BlockMap& a, uint64_t at_a, const BlockMap& b, uint64_t at_b, uint64_t length) {
  const Extent left = extent_at(a, at_a, a.size());
  const Extent right = extent_at(b, at_b, b.size());
  return {std::min({left.length, right.length, length}), same_source(left, right)};
}

Result<SpaceDiff> diff(const AddressSpace& a, const AddressSpace& b, const std::function<bool()>& go_on) {
  return Comparison(a, b, go_on).run();
}

}  // namespace stasis::snapshot
