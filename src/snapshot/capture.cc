#include "snapshot/capture.h"

#include <algorithm>
#include <cstring>

#include "snapshot/ranges.h"

namespace stasis::snapshot {
namespace {

constexpr uint64_t kChunk = uint64_t{512}
                            << 10;  // read at once: few system calls, and it and its parent stay in the cache

class Capture {
 public:
  Capture(FileSystem& fs, const Path& layers_dir, int fd, const AddressSpace& base)
      : fs_(fs), layers_dir_(layers_dir), fd_(fd), base_(base), ours_(kChunk), parents_(kChunk) {}

  Status candidates(std::span<const Range> ranges);
  // Ranges that read as zeros now; none of them is a candidate.
  void removed(std::span<const Range> ranges);
  Result<CaptureResult> finish();

 private:
  Status chunk(Range range);
  // A part of a chunk that is one extent of the parent.
  Status piece(Range range, std::span<const std::byte> ours, bool parent_is_zero);
  Status compare(Range range, std::span<const std::byte> ours, std::span<const std::byte> parents);
  // Takes a block of ours_ for the layer. It is written with its neighbours by flush(), before ours_ is used again.
  Status store(uint64_t offset, std::span<const std::byte> block);
  Status flush();

  FileSystem& fs_;
  const Path& layers_dir_;
  const int fd_;
  const AddressSpace& base_;
  const LayerId id_ = LayerId::random();
  std::vector<std::byte> ours_;
  std::vector<std::byte> parents_;
  std::unique_ptr<LayerWriter> writer_;
  uint64_t run_offset_ = 0;  // the run of blocks that waits for flush()
  std::span<const std::byte> run_;
  std::vector<Change> changes_;        // of candidates
  std::vector<Change> removed_zeros_;  // of removed ranges
  uint64_t compared_ = 0;              // bytes, as the others
  uint64_t stored_ = 0;
  uint64_t zeroed_ = 0;
  uint64_t unreadable_ = 0;
};

Status Capture::candidates(std::span<const Range> ranges) {
  for (const Range& range : ranges) {
    for (uint64_t offset = range.offset; offset < range.end();) {
      // Chunks end at multiples of their size, so that a frame is never split between two.
      const uint64_t length = std::min(range.end() - offset, kChunk - offset % kChunk);
      STASIS_TRY(chunk({offset, length}));
      offset += length;
    }
  }
  return {};
}

Status Capture::chunk(Range range) {
  const auto ours = std::span(ours_).first(range.length);
  auto n = fs_.read_at(fd_, range.offset, ours);
  if (!n) return fail(std::move(n).error().with_context("read what is captured at " + std::to_string(range.offset)));
  if (*n != range.length) {
    return fail(Code::kOutOfRange,
                "what is captured ends at " + std::to_string(range.offset + *n) + ", before the address space");
  }
  compared_ += range.length;
  for (uint64_t offset = range.offset; offset < range.end();) {
    const Extent extent = base_.map().find(offset);
    const uint64_t end = std::min(extent.end(), range.end());
    STASIS_TRY(piece({offset, end - offset}, ours.subspan(offset - range.offset, end - offset), extent.is_zero()));
    offset = end;
  }
  return flush();
}

// What stands in the parent's place where there is nothing to compare with: the block differs, whatever it is.
constexpr std::span<const std::byte> kIncomparable{};

Status Capture::piece(Range range, std::span<const std::byte> ours, bool parent_is_zero) {
  if (parent_is_zero) {
    for (uint64_t at = 0; at < range.length; at += kBlockSize) {
      const auto block = ours.subspan(at, kBlockSize);
      if (!is_zero(block)) STASIS_TRY(store(range.offset + at, block));
    }
    return {};
  }
  const auto parents = std::span(parents_).first(range.length);
  if (base_.read(range.offset, parents)) return compare(range, ours, parents);
  // The parent is damaged somewhere here. Whole frames beside the damage are still compared; what cannot be compared is
  // taken as changed, because the new bytes are good and must not be lost with the old ones.
  for (uint64_t offset = range.offset; offset < range.end();) {
    const Range part{offset, std::min(range.end() - offset, kFrameSize - offset % kFrameSize)};
    const auto part_parents = parents.first(part.length);
    const bool readable = base_.read(offset, part_parents).has_value();
    if (!readable) unreadable_ += part.length;
    STASIS_TRY(
        compare(part, ours.subspan(offset - range.offset, part.length), readable ? part_parents : kIncomparable));
    offset = part.end();
  }
  return {};
}

Status Capture::compare(Range range, std::span<const std::byte> ours, std::span<const std::byte> parents) {
  for (uint64_t at = 0; at < range.length; at += kBlockSize) {
    const auto block = ours.subspan(at, kBlockSize);
    if (!parents.empty() && std::memcmp(block.data(), parents.data() + at, kBlockSize) == 0) continue;
    if (is_zero(block)) {
      STASIS_TRY(flush());  // changes are listed in order
      zeroed_ += kBlockSize;
      append_change(changes_, {range.offset + at, kBlockSize}, true);
    } else {
      STASIS_TRY(store(range.offset + at, block));
    }
  }
  return {};
}

Status Capture::store(uint64_t offset, std::span<const std::byte> block) {
  if (run_offset_ + run_.size() != offset) {
    STASIS_TRY(flush());
    run_offset_ = offset;
    run_ = block;
  } else {
    run_ = {run_.empty() ? block.data() : run_.data(), run_.size() + block.size()};
  }
  return {};
}

Status Capture::flush() {
  if (run_.empty()) return {};
  if (!writer_) {
    STASIS_ASSIGN(writer_, LayerWriter::create(fs_, layers_dir_, id_, base_.size()));
  }
  STASIS_TRY(writer_->write(run_offset_, run_));
  append_change(changes_, {run_offset_, run_.size()}, false);
  stored_ += run_.size();
  run_offset_ += run_.size();
  run_ = {};
  return {};
}

void Capture::removed(std::span<const Range> ranges) {
  for (const Range& range : ranges) {
    for (uint64_t offset = range.offset; offset < range.end();) {
      const Extent extent = base_.map().find(offset);
      const uint64_t end = std::min(extent.end(), range.end());
      if (!extent.is_zero()) {
        zeroed_ += end - offset;
        append_change(removed_zeros_, {offset, end - offset}, true);
      }
      offset = end;
    }
  }
}

Result<CaptureResult> Capture::finish() {
  std::vector<Change> changes;
  changes.reserve(changes_.size() + removed_zeros_.size());
  std::merge(changes_.begin(), changes_.end(), removed_zeros_.begin(), removed_zeros_.end(),
             std::back_inserter(changes),
             [](const Change& a, const Change& b) { return a.range.offset < b.range.offset; });
  // Before the layer gets its name: a map beyond the limits must not leave one behind.
  STASIS_ASSIGN(BlockMap map, base_.map().merge(id_, changes));
  CaptureResult result;
  result.map = std::move(map);
  if (writer_) {
    STASIS_ASSIGN(result.layer, writer_->finish());
  }
  result.blocks_compared = compared_ / kBlockSize;
  result.blocks_stored = stored_ / kBlockSize;
  result.blocks_zeroed = zeroed_ / kBlockSize;
  result.blocks_incomparable = unreadable_ / kBlockSize;
  return result;
}

}  // namespace

Result<CaptureResult> capture(FileSystem& fs, const Path& layers_dir, const CaptureSource& source,
                              const AddressSpace& base) {
  STASIS_TRY(check_ranges(source.candidates, base.size(), "candidate"));
  STASIS_TRY(check_ranges(source.removed, base.size(), "removed"));
  Capture capture(fs, layers_dir, source.fd, base);
  STASIS_TRY(capture.candidates(source.candidates));
  capture.removed(subtract(source.removed, source.candidates));
  return capture.finish();
}

}  // namespace stasis::snapshot
