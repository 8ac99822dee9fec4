#include "supervisor/live_copy.h"

#include <algorithm>

#include "base/sync_point.h"
#include "snapshot/ranges.h"

namespace stasis::supervisor {
namespace {

// Copied at once: stays in the cache of one core.
constexpr uint64_t kChunk = uint64_t{128} << 10;
constexpr uint64_t kKeptAtMost = uint64_t{64} << 20;

}  // namespace

Result<LiveCopy> LiveCopy::create(FileSystem& fs, std::shared_ptr<const snapshot::AddressSpace> parent, Path work_dir) {
  STASIS_ASSIGN(auto blocks, disk::CowDisk::create(fs, std::move(parent), std::move(work_dir)));
  return LiveCopy(fs, std::move(blocks));
}

Status LiveCopy::copy(int source, std::span<const Range> ranges, uint64_t source_offset) {
  STASIS_TRY(snapshot::check_ranges(ranges, blocks_->size(), "copied"));
  copied_ = snapshot::unite(copied_, ranges);
  std::vector<std::byte> buffer(kChunk);
  for (const Range& range : ranges) {
    for (uint64_t offset = range.offset; offset < range.end();) {
      const auto bytes = std::span(buffer).first(std::min(range.end() - offset, kChunk));
      sync_point("live_copy.read");
      STASIS_TRY(read(source, source_offset + offset, bytes));
      sync_point("live_copy.write");
      STASIS_TRY(blocks_->write(offset, bytes));
      offset += bytes.size();
    }
  }
  return {};
}

Status LiveCopy::read(int source, uint64_t offset, std::span<std::byte> out) {
  STASIS_ASSIGN(const size_t n, fs_->read_at(source, offset, out));
  if (n != out.size()) return fail(Code::kOutOfRange, "guest memory ends at " + std::to_string(offset + n));
  return {};
}

Status LiveCopy::copy_last(int source, std::span<const Range> ranges, uint64_t source_offset) {
  if (total_length(ranges) > kKeptAtMost) return copy(source, ranges, source_offset);
  STASIS_TRY(snapshot::check_ranges(ranges, blocks_->size(), "copied"));
  bytes_.resize(total_length(ranges));
  auto rest = std::span(bytes_);
  for (const Range& range : ranges) {
    STASIS_TRY(read(source, source_offset + range.offset, rest.first(range.length)));
    rest = rest.subspan(range.length);
  }
  copied_ = snapshot::unite(copied_, ranges);
  kept_.assign(ranges.begin(), ranges.end());
  return {};
}

Status LiveCopy::write_kept() {
  auto rest = std::span<const std::byte>(bytes_);
  for (const Range& range : kept_) {
    STASIS_TRY(blocks_->write(range.offset, rest.first(range.length)));
    rest = rest.subspan(range.length);
  }
  kept_.clear();
  bytes_ = {};
  return {};
}

Status LiveCopy::discard(std::span<const Range> ranges) {
  for (const Range& range : ranges) STASIS_TRY(blocks_->discard(range.offset, range.length));
  return {};
}

Result<snapshot::CaptureResult> LiveCopy::seal(const Path& layers_dir, std::span<const Range> changed,
                                               std::span<const Range> removed) {
  if (!snapshot::subtract(changed, copied_).empty()) {
    return fail(Code::kInternal, "memory that changed has not been copied");
  }
  STASIS_TRY(write_kept());
  STASIS_TRY(discard(snapshot::subtract(copied_, changed)));
  STASIS_TRY(discard(snapshot::subtract(removed, changed)));
  STASIS_ASSIGN(disk::SealResult sealed, blocks_->seal(layers_dir, snapshot::LayerId::random()));
  snapshot::CaptureResult result;
  result.map = std::move(sealed.map);
  result.layer = sealed.layer;
  result.blocks_compared = total_length(changed) / snapshot::kBlockSize;
  result.blocks_stored = sealed.blocks_stored;
  result.blocks_zeroed = sealed.blocks_zeroed;
  return result;
}

}  // namespace stasis::supervisor
