#include "snapshot/capture.h"

#include <algorithm>
#include <array>
#include <bitset>
#include <cstring>
#include <system_error>

#include "snapshot/ranges.h"
#include "snapshot/read_ahead.h"

namespace stasis::snapshot {
namespace {

// Looked at at once, before any of it is written: it and its parent's blocks stay in the cache of one core; 128 KiB at
// once took 3 to 9 % longer. What has to be copied out of a file first takes room in the cache twice.
constexpr uint64_t kChunk = uint64_t{512} << 10;
constexpr uint64_t kCopiedChunk = uint64_t{128} << 10;
// Of less a second thread spares less than it costs.
constexpr uint64_t kReadAheadFrom = uint64_t{2} << 20;
// Room for that many changes at first, if there are as many candidates: growing to it would allocate as much again.
constexpr uint64_t kExpectedChanges = 16 << 10;
constexpr size_t kChunkBlocks = kChunk / kBlockSize;
using BlockSet = std::bitset<kChunkBlocks>;
// Asked of the processor ahead of a block's comparison; it goes on by itself.
constexpr size_t kPrefetch = 256;

// The parent's blocks of a chunk.
struct Parents {
  std::array<const std::byte*, kChunkBlocks> blocks{};  // nullptr: zeros, or damaged
  BlockSet damaged;                                     // or not to be read
  std::array<Range, kChunkBlocks> in_place;             // those in `blocks` that are where the layer's file is mapped
  size_t in_place_count = 0;

  void set(size_t first, std::span<const std::byte> bytes) {
    for (size_t i = 0; i < bytes.size() / kBlockSize; ++i) blocks[first + i] = bytes.data() + i * kBlockSize;
  }
};

class Capture {
 public:
  Capture(FileSystem& fs, const Path& layers_dir, const CaptureSource& source, const AddressSpace& base)
      : fs_(fs), layers_dir_(layers_dir), source_(source), base_(base) {}

  Status candidates(std::span<const Range> ranges);
  // Ranges that read as zeros now; none of them is a candidate.
  void removed(std::span<const Range> ranges);
  Result<CaptureResult> finish();

 private:
  Status candidates_in_place(std::span<const Range> ranges);
  Status candidates_read_ahead(ReadAhead& ahead);
  Status candidates_read(std::span<const Range> ranges);
  // Pieces whose bytes follow each other in `ours`.
  Status compare_all(std::span<const Range> pieces, std::span<const std::byte> ours);
  // A piece, and the bytes of it.
  Status compare(Range range, std::span<const std::byte> ours);
  // Where the parent's blocks are: in its layers' mappings where that can be, or copied to parents_.
  Parents find_parents(Range range, bool in_place);
  // The same for a part of the chunk that is one extent, copied.
  void copy_parents(Range range, size_t first, Parents& parents);
  bool still_there(const Parents& parents) const;
  // Takes a block for the layer. It is written with its neighbours by flush(), before the next chunk.
  Status store(uint64_t offset, std::span<const std::byte> block);
  Status flush();

  FileSystem& fs_;
  const Path& layers_dir_;
  const CaptureSource& source_;
  const AddressSpace& base_;
  const LayerId id_ = LayerId::random();
  std::vector<std::byte> ours_;     // kCopiedChunk once it is needed
  std::vector<std::byte> parents_;  // kChunk once one cannot be compared in place
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
  if (!source_.in_place.empty()) return candidates_in_place(ranges);
  if (total_length(ranges) >= kReadAheadFrom) {
    std::optional<ReadAhead> ahead;
    try {
      ahead.emplace(fs_, source_.memory, ranges, kCopiedChunk);
    } catch (const std::system_error&) {  // no thread to be had
      return candidates_read(ranges);
    }
    return candidates_read_ahead(*ahead);
  }
  return candidates_read(ranges);
}

// Here and below pieces end at multiples of what is looked at at once, so that a frame is never split between two.
Status Capture::candidates_in_place(std::span<const Range> ranges) {
  return in_chunks(ranges, kChunk, [&](std::span<const Range> pieces) -> Status {
    for (const Range& piece : pieces) {
      STASIS_TRY(compare(piece, source_.in_place.subspan(piece.offset, piece.length)));
    }
    return {};
  });
}

Status Capture::candidates_read_ahead(ReadAhead& ahead) {
  for (;;) {
    auto chunk = ahead.next();
    if (!chunk) return fail(std::move(chunk).error().with_context("read what is captured"));
    if (*chunk == nullptr) return {};
    STASIS_TRY(compare_all((*chunk)->pieces, (*chunk)->bytes));
  }
}

Status Capture::candidates_read(std::span<const Range> ranges) {
  ours_.resize(kCopiedChunk);
  return in_chunks(ranges, kCopiedChunk, [&](std::span<const Range> pieces) -> Status {
    const auto ours = std::span(ours_).first(total_length(pieces));
    STASIS_TRY_CONTEXT(source_.memory.read(fs_, pieces, ours), "read what is captured");
    return compare_all(pieces, ours);
  });
}

Status Capture::compare_all(std::span<const Range> pieces, std::span<const std::byte> ours) {
  for (const Range& piece : pieces) {
    STASIS_TRY(compare(piece, ours.first(piece.length)));
    ours = ours.subspan(piece.length);
  }
  return {};
}

// Which blocks of a chunk differ. The next ones are asked for ahead, because the processor cannot guess where a parent
// whose blocks are scattered goes on.
BlockSet differences(std::span<const std::byte> ours, const Parents& parents) {
  const auto prefetch = [&](size_t block, size_t bytes) {
    if (block >= ours.size() / kBlockSize) return;
    for (size_t at = 0; at < bytes; at += 64) {
      __builtin_prefetch(ours.data() + block * kBlockSize + at);
      if (parents.blocks[block] != nullptr) __builtin_prefetch(parents.blocks[block] + at);
    }
  };
  BlockSet changed = parents.damaged;
  for (size_t i = 0; i < ours.size() / kBlockSize; ++i) {
    prefetch(i + 1, kPrefetch);
    prefetch(i + 2, 1);
    const auto block = ours.subspan(i * kBlockSize, kBlockSize);
    const std::byte* parent = parents.blocks[i];
    if (parent == nullptr ? !is_zero(block) : std::memcmp(block.data(), parent, kBlockSize) != 0) changed.set(i);
  }
  return changed;
}

Status Capture::compare(Range range, std::span<const std::byte> ours) {
  compared_ += range.length;
  Parents parents = find_parents(range, true);
  BlockSet changed = differences(ours, parents);
  if (!still_there(parents)) {
    parents = find_parents(range, false);
    changed = differences(ours, parents);
  }
  unreadable_ += parents.damaged.count() * kBlockSize;
  for (size_t i = 0; i < ours.size() / kBlockSize; ++i) {
    if (!changed[i]) continue;
    const uint64_t offset = range.offset + i * kBlockSize;
    const auto block = ours.subspan(i * kBlockSize, kBlockSize);
    if (!is_zero(block)) {
      STASIS_TRY(store(offset, block));
    } else {
      STASIS_TRY(flush());  // changes are listed in order
      zeroed_ += kBlockSize;
      append_change(changes_, {offset, kBlockSize}, true);
    }
  }
  return flush();
}

Parents Capture::find_parents(Range range, bool in_place) {
  Parents parents;
  for (uint64_t offset = range.offset; offset < range.end();) {
    const Extent extent = base_.map().find(offset);
    const Range piece{offset, std::min(extent.end(), range.end()) - offset};
    const size_t first = (offset - range.offset) / kBlockSize;
    offset = piece.end();
    if (extent.is_zero()) continue;
    const auto view = in_place ? base_.view(piece.offset, piece.length) : std::span<const std::byte>();
    if (view.empty()) {
      copy_parents(piece, first, parents);
    } else {
      parents.set(first, view);
      parents.in_place[parents.in_place_count++] = piece;
    }
  }
  return parents;
}

void Capture::copy_parents(Range range, size_t first, Parents& parents) {
  parents_.resize(kChunk);
  const auto copy = std::span(parents_).subspan(first * kBlockSize, range.length);
  if (base_.read(range.offset, copy)) return parents.set(first, copy);
  // The parent is damaged somewhere here. Whole frames beside the damage are still compared; what cannot be compared is
  // taken as changed, because the new bytes are good and must not be lost with the old ones.
  for (uint64_t offset = range.offset; offset < range.end();) {
    const uint64_t at = offset - range.offset;
    const uint64_t length = std::min(range.end() - offset, kFrameSize - offset % kFrameSize);
    if (const auto frame = copy.subspan(at, length); base_.read(offset, frame)) {
      parents.set(first + at / kBlockSize, frame);
    } else {
      for (uint64_t block = 0; block < length / kBlockSize; ++block)
        parents.damaged.set(first + at / kBlockSize + block);
    }
    offset += length;
  }
}

// Blocks that were read in place were good only if they still are (base/file_mapping.h).
bool Capture::still_there(const Parents& parents) const {
  const auto read_in_place = std::span(parents.in_place).first(parents.in_place_count);
  return std::ranges::none_of(read_in_place,
                              [&](const Range& piece) { return base_.view(piece.offset, piece.length).empty(); });
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
  if (!source.in_place.empty() && source.in_place.size() != base.size()) {
    return fail(Code::kInvalidArgument, std::to_string(source.in_place.size()) + " bytes of memory to capture of " +
                                            std::to_string(base.size()));
  }
  Capture capture(fs, layers_dir, source, base);
  STASIS_TRY(capture.candidates(source.candidates));
  capture.removed(subtract(source.removed, source.candidates));
  return capture.finish();
}

}  // namespace stasis::snapshot
