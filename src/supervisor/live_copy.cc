#include "supervisor/live_copy.h"

#include "base/sync_point.h"
#include "snapshot/ranges.h"

namespace stasis::supervisor {
namespace {

// Copied at once: stays in the cache of one core.
constexpr uint64_t kChunk = uint64_t{128} << 10;
constexpr uint64_t kKeptAtMost = uint64_t{64} << 20;
// So much would be written back while the guest stands still, and take QEMU's processor and the disk from it.
constexpr uint64_t kWrittenBackFrom = uint64_t{256} << 20;

}  // namespace

Result<LiveCopy> LiveCopy::create(FileSystem& fs, std::shared_ptr<const snapshot::AddressSpace> parent, Path work_dir) {
  STASIS_ASSIGN(auto blocks, disk::CowDisk::create(fs, std::move(parent), std::move(work_dir)));
  return LiveCopy(fs, std::move(blocks));
}

Status LiveCopy::copy(const MemorySource& source, std::span<const Range> ranges) {
  STASIS_TRY(snapshot::check_ranges(ranges, blocks_->size(), "copied"));
  copied_ = snapshot::unite(copied_, ranges);
  std::vector<std::byte> buffer(kChunk);
  const auto copy_pieces = [&](std::span<const Range> pieces) -> Status {
    const auto bytes = std::span(buffer).first(total_length(pieces));
    sync_point("live_copy.read");
    STASIS_TRY(source.read(*fs_, pieces, bytes));
    sync_point("live_copy.write");
    return write(pieces, bytes);
  };
  STASIS_TRY(snapshot::in_chunks(ranges, kChunk, copy_pieces));
  return total_length(ranges) < kWrittenBackFrom ? Status() : blocks_->write_back();
}

Status LiveCopy::write(std::span<const Range> ranges, std::span<const std::byte> bytes) {
  for (const Range& range : ranges) {
    STASIS_TRY(blocks_->write(range.offset, bytes.first(range.length)));
    bytes = bytes.subspan(range.length);
  }
  return {};
}

Status LiveCopy::copy_last(const MemorySource& source, std::span<const Range> ranges) {
  if (total_length(ranges) > kKeptAtMost) return copy(source, ranges);
  STASIS_TRY(snapshot::check_ranges(ranges, blocks_->size(), "copied"));
  bytes_.resize(total_length(ranges));
  STASIS_TRY(source.read(*fs_, ranges, bytes_));
  copied_ = snapshot::unite(copied_, ranges);
  kept_.assign(ranges.begin(), ranges.end());
  return {};
}

Status LiveCopy::write_kept() {
  STASIS_TRY(write(kept_, bytes_));
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
