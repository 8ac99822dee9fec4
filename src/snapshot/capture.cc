#include "snapshot/capture.h"

#include <algorithm>
#include <bitset>
#include <cstring>

#include "snapshot/ranges.h"

namespace stasis::snapshot {
namespace {

// Looked at at once: few system calls, and it and its parent's blocks stay in the cache of one core.
constexpr uint64_t kChunk = uint64_t{128} << 10;
// Room for that many changes at first, if there are as many candidates: growing to it would allocate as much again.
constexpr uint64_t kExpectedChanges = 16 << 10;
using BlockSet = std::bitset<kChunk / kBlockSize>;

class Capture {
 public:
  Capture(FileSystem& fs, const Path& layers_dir, const CaptureSource& source, const AddressSpace& base)
      : fs_(fs), layers_dir_(layers_dir), source_(source), base_(base) {}

  Status candidates(std::span<const Range> ranges);
  // Ranges that read as zeros now; none of them is a candidate.
  void removed(std::span<const Range> ranges);
  Result<CaptureResult> finish();

 private:
  Status chunk(Range range);
  // A part of a chunk that is one extent of the parent.
  Status piece(Range range, std::span<const std::byte> ours, bool parent_is_zero);
  // Which blocks of a piece differ from the parent's.
  BlockSet changed_blocks(Range range, std::span<const std::byte> ours);
  Result<std::span<const std::byte>> load(Range range);
  // Takes a block for the layer. It is written with its neighbours by flush(), before the next chunk.
  Status store(uint64_t offset, std::span<const std::byte> block);
  Status flush();

  FileSystem& fs_;
  const Path& layers_dir_;
  const CaptureSource& source_;
  const AddressSpace& base_;
  const LayerId id_ = LayerId::random();
  std::vector<std::byte> ours_;     // kChunk once it is needed
  std::vector<std::byte> parents_;  // the same
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
  changes_.reserve(std::min<uint64_t>(total_length(ranges) / kBlockSize / 16 + 1, kExpectedChanges));
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

// A chunk's bytes: where the caller has them, or in ours_.
Result<std::span<const std::byte>> Capture::load(Range range) {
  if (!source_.memory.empty()) return source_.memory.subspan(range.offset, range.length);
  ours_.resize(kChunk);
  const auto ours = std::span(ours_).first(range.length);
  auto n = fs_.read_at(source_.fd, source_.fd_offset + range.offset, ours);
  if (!n) return fail(std::move(n).error().with_context("read what is captured at " + std::to_string(range.offset)));
  if (*n != range.length) {
    return fail(Code::kOutOfRange,
                "what is captured ends at " + std::to_string(range.offset + *n) + ", before the address space");
  }
  return ours;
}

Status Capture::chunk(Range range) {
  STASIS_ASSIGN(const auto ours, load(range));
  compared_ += range.length;
  for (uint64_t offset = range.offset; offset < range.end();) {
    const Extent extent = base_.map().find(offset);
    const uint64_t end = std::min(extent.end(), range.end());
    STASIS_TRY(piece({offset, end - offset}, ours.subspan(offset - range.offset, end - offset), extent.is_zero()));
    offset = end;
  }
  return flush();
}

Status Capture::piece(Range range, std::span<const std::byte> ours, bool parent_is_zero) {
  const BlockSet changed = parent_is_zero ? BlockSet().set() : changed_blocks(range, ours);
  for (uint64_t at = 0; at < range.length; at += kBlockSize) {
    if (!changed[at / kBlockSize]) continue;
    const auto block = ours.subspan(at, kBlockSize);
    if (!is_zero(block)) {
      STASIS_TRY(store(range.offset + at, block));
    } else if (!parent_is_zero) {
      STASIS_TRY(flush());  // changes are listed in order
      zeroed_ += kBlockSize;
      append_change(changes_, {range.offset + at, kBlockSize}, true);
    }
  }
  return {};
}

void compare(std::span<const std::byte> ours, std::span<const std::byte> parents, size_t first, BlockSet& changed) {
  for (uint64_t at = 0; at < parents.size(); at += kBlockSize) {
    changed[first + at / kBlockSize] = std::memcmp(ours.data() + at, parents.data() + at, kBlockSize) != 0;
  }
}

BlockSet Capture::changed_blocks(Range range, std::span<const std::byte> ours) {
  BlockSet changed;
  if (const auto view = base_.view(range.offset, range.length); !view.empty()) {
    compare(ours, view, 0, changed);
    if (!base_.view(range.offset, range.length).empty()) return changed;
  }
  parents_.resize(kChunk);
  const auto parents = std::span(parents_).first(range.length);
  if (base_.read(range.offset, parents)) {
    compare(ours, parents, 0, changed);
    return changed;
  }
  // The parent is damaged somewhere here. Whole frames beside the damage are still compared; what cannot be compared is
  // taken as changed, because the new bytes are good and must not be lost with the old ones.
  changed.set();
  for (uint64_t offset = range.offset; offset < range.end();) {
    const uint64_t at = offset - range.offset;
    const uint64_t length = std::min(range.end() - offset, kFrameSize - offset % kFrameSize);
    if (base_.read(offset, parents.first(length))) {
      compare(ours.subspan(at), parents.first(length), at / kBlockSize, changed);
    } else {
      unreadable_ += length;
    }
    offset += length;
  }
  return changed;
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
  if (!removed_zeros_.empty()) {
    const auto middle = changes_.insert(changes_.end(), removed_zeros_.begin(), removed_zeros_.end());
    std::inplace_merge(changes_.begin(), middle, changes_.end(),
                       [](const Change& a, const Change& b) { return a.range.offset < b.range.offset; });
  }
  // Before the layer gets its name: a map beyond the limits must not leave one behind.
  STASIS_ASSIGN(BlockMap map, base_.map().merge(id_, changes_));
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
  if (!source.memory.empty() && source.memory.size() != base.size()) {
    return fail(Code::kInvalidArgument,
                std::to_string(source.memory.size()) + " bytes of memory to capture of " + std::to_string(base.size()));
  }
  Capture capture(fs, layers_dir, source, base);
  STASIS_TRY(capture.candidates(source.candidates));
  capture.removed(subtract(source.removed, source.candidates));
  return capture.finish();
}

}  // namespace stasis::snapshot
