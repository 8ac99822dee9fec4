#include "disk/cow_disk.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "disk/cow_disk_state.h"

namespace stasis::disk {
namespace {

using snapshot::kBlockSize;
using Block = std::array<std::byte, kBlockSize>;

Status check_range(uint64_t offset, uint64_t length, uint64_t size) {
  if (offset <= size && length <= size - offset) return {};
  return fail(Code::kOutOfRange,
              std::to_string(length) + " bytes at " + std::to_string(offset) + " of a disk of " + std::to_string(size));
}

// Calls `piece(offset, length)` for the part of [offset, offset + length) in each region.
template <typename Piece>
Status for_each_region(uint64_t offset, uint64_t length, Piece piece) {
  while (length > 0) {
    const uint64_t here = std::min(length, kRegionSize - offset % kRegionSize);
    STASIS_TRY(piece(offset, here));
    offset += here;
    length -= here;
  }
  return {};
}

// The same for blocks: `part(offset, length)` for what covers a block in part, `whole(offset, length)` for whole
// blocks.
template <typename Part, typename Whole>
Status split_at_blocks(uint64_t offset, uint64_t length, Part part, Whole whole) {
  while (length > 0) {
    const bool aligned = offset % kBlockSize == 0 && length >= kBlockSize;
    const uint64_t here = aligned ? length - length % kBlockSize : std::min(length, kBlockSize - offset % kBlockSize);
    STASIS_TRY(aligned ? whole(offset, here) : part(offset, here));
    offset += here;
    length -= here;
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<CowDisk>> CowDisk::create(FileSystem& fs, std::shared_ptr<const snapshot::AddressSpace> base,
                                                 Path work_dir) {
  STASIS_ASSIGN(const auto names, fs.list(work_dir));
  for (const std::string& name : names) {
    if (name.starts_with("write.")) {
      return fail(Code::kFailedPrecondition, "there is a write layer in " + work_dir.string() + ": " + name);
    }
  }
  auto state = std::make_unique<State>(fs, std::move(base), std::move(work_dir));
  STASIS_ASSIGN(state->top, state->make_write_layer());
  return std::unique_ptr<CowDisk>(new CowDisk(std::move(state)));
}

CowDisk::CowDisk(std::unique_ptr<State> state) : state_(std::move(state)) {}

CowDisk::~CowDisk() {
  (void)state_->fs.remove(state_->top.path);
  if (state_->frozen) (void)state_->fs.remove(state_->frozen->path);
  if (state_->prepared) (void)state_->fs.remove(state_->prepared->path);
}

uint64_t CowDisk::size() const { return state_->size; }

DiskStats CowDisk::stats() const {
  const std::shared_lock lock(state_->lock_of(0));
  DiskStats stats{state_->top.states->written(), state_->top.states->zeroed()};
  if (state_->frozen) {
    stats.blocks_written += state_->frozen->states->written();
    stats.blocks_zeroed += state_->frozen->states->zeroed();
  }
  return stats;
}

const snapshot::BlockMap& CowDisk::map() const { return state_->base->map(); }

Status CowDisk::read(uint64_t offset, std::span<std::byte> out) const {
  STASIS_TRY(check_range(offset, out.size(), state_->size));
  return for_each_region(offset, out.size(), [&](uint64_t at, uint64_t length) {
    const std::shared_lock lock(state_->lock_of(at));
    return state_->read_piece(at, out.subspan(at - offset, length));
  });
}

Status CowDisk::write(uint64_t offset, std::span<const std::byte> data) {
  STASIS_TRY(check_range(offset, data.size(), state_->size));
  return for_each_region(offset, data.size(), [&](uint64_t at, uint64_t length) {
    const std::unique_lock lock(state_->lock_of(at));
    return state_->write_piece(at, data.subspan(at - offset, length));
  });
}

Status CowDisk::discard(uint64_t offset, uint64_t length) {
  STASIS_TRY(check_range(offset, length, state_->size));
  return for_each_region(offset, length, [&](uint64_t at, uint64_t here) {
    const std::unique_lock lock(state_->lock_of(at));
    return state_->discard_piece(at, here);
  });
}

Status CowDisk::write_back() {
  Status synced = state_->fs.sync(state_->top.fd.get());
  if (!synced) state_->top.spoilt = true;
  return synced;
}

Status CowDisk::prepare_freeze() { return state_->prepare_freeze(); }

Status CowDisk::freeze() { return state_->freeze(); }

Result<SealResult> CowDisk::seal_frozen(const Path& layers_dir, snapshot::LayerId id, const KeepMap& keep) {
  return state_->seal_frozen(layers_dir, id, keep);
}

Result<SealResult> CowDisk::seal(const Path& layers_dir, snapshot::LayerId id) {
  STASIS_TRY(freeze());
  return seal_frozen(layers_dir, id, [](const snapshot::BlockMap&) { return Status(); });
}

CowDisk::State::AllLocks CowDisk::State::lock_all() {
  AllLocks held;
  std::transform(locks.begin(), locks.end(), held.begin(),
                 [](std::shared_mutex& mutex) { return std::unique_lock(mutex); });
  return held;
}

Result<CowDisk::State::WriteLayer> CowDisk::State::make_write_layer() {
  WriteLayer made;
  STASIS_ASSIGN(made.states, BlockStates::create(size / kBlockSize));
  made.path = work_dir / ("write." + std::to_string(next_file));
  STASIS_ASSIGN(made.fd, fs.create(made.path));
  ++next_file;
  if (Status sized = fs.truncate(made.fd.get(), size); !sized) {
    (void)fs.remove(made.path);
    return fail(std::move(sized).error().with_context(made.path.string()));
  }
  return made;
}

template <typename Below>
Status CowDisk::State::read_layer(const WriteLayer& layer, uint64_t offset, std::span<std::byte> out,
                                  Below below) const {
  const uint64_t end_block = (offset + out.size() + kBlockSize - 1) / kBlockSize;
  while (!out.empty()) {
    const BlockStates::Run run = layer.states->run(offset / kBlockSize, end_block);
    const auto part = out.first(std::min<uint64_t>(out.size(), run.end() * kBlockSize - offset));
    if (run.state == BlockState::kZero) std::memset(part.data(), 0, part.size());
    if (run.state == BlockState::kWritten) STASIS_TRY(read_file(layer, offset, part));
    if (run.state == BlockState::kBase) STASIS_TRY(below(offset, part));
    offset += part.size();
    out = out.subspan(part.size());
  }
  return {};
}

Status CowDisk::State::read_piece(uint64_t offset, std::span<std::byte> out) const {
  const auto read_the_base = [&](uint64_t at, std::span<std::byte> part) { return read_base(at, part); };
  return read_layer(top, offset, out, [&](uint64_t at, std::span<std::byte> part) {
    return frozen ? read_layer(*frozen, at, part, read_the_base) : read_base(at, part);
  });
}

bool CowDisk::State::is_zero_below(uint64_t block) const {
  const BlockState state = frozen ? frozen->states->at(block) : BlockState::kBase;
  if (state == BlockState::kBase) return base->map().find(block * kBlockSize).is_zero();
  return state == BlockState::kZero;
}

Status CowDisk::State::read_file(const WriteLayer& layer, uint64_t offset, std::span<std::byte> out) const {
  auto n = fs.read_at(layer.fd.get(), offset, out);
  if (!n) return fail(std::move(n).error().with_context(layer.path.string()));
  if (*n == out.size()) return {};
  return fail(Code::kDataLoss, layer.path.string() + " is shorter than the disk");
}

// The base reads whole blocks only.
Status CowDisk::State::read_base(uint64_t offset, std::span<std::byte> out) const {
  const uint64_t start = offset;
  return split_at_blocks(
      offset, out.size(),
      [&](uint64_t at, uint64_t length) -> Status {
        Block block;
        STASIS_TRY(base->read(at - at % kBlockSize, block));
        std::memcpy(out.data() + (at - start), block.data() + at % kBlockSize, length);
        return {};
      },
      [&](uint64_t at, uint64_t length) { return base->read(at, out.subspan(at - start, length)); });
}

// The state of a block changes only after its bytes are in the file: a write that fails leaves the block as it was, or,
// if it was in the write layer before, with a part of the new bytes, as on any disk.
Status CowDisk::State::write_piece(uint64_t offset, std::span<const std::byte> data) {
  const uint64_t start = offset;
  return split_at_blocks(
      offset, data.size(),
      [&](uint64_t at, uint64_t length) { return write_part_of_block(at, data.subspan(at - start, length)); },
      [&](uint64_t at, uint64_t length) -> Status {
        STASIS_TRY_CONTEXT(fs.write_at(top.fd.get(), at, data.subspan(at - start, length)), top.path.string());
        top.states->set(at / kBlockSize, length / kBlockSize, BlockState::kWritten);
        return {};
      });
}

Status CowDisk::State::write_part_of_block(uint64_t offset, std::span<const std::byte> data) {
  const uint64_t number = offset / kBlockSize;
  if (top.states->at(number) == BlockState::kWritten) {
    STASIS_TRY_CONTEXT(fs.write_at(top.fd.get(), offset, data), top.path.string());
    return {};
  }
  Block block;
  STASIS_TRY(read_piece(number * kBlockSize, block));
  std::memcpy(block.data() + offset % kBlockSize, data.data(), data.size());
  STASIS_TRY_CONTEXT(fs.write_at(top.fd.get(), number * kBlockSize, block), top.path.string());
  top.states->set(number, 1, BlockState::kWritten);
  return {};
}

Status CowDisk::State::discard_piece(uint64_t offset, uint64_t length) {
  return split_at_blocks(
      offset, length, [&](uint64_t at, uint64_t part) { return zero_part_of_block(at, part); },
      [&](uint64_t at, uint64_t whole) { return zero_blocks(at / kBlockSize, whole / kBlockSize); });
}

Status CowDisk::State::zero_part_of_block(uint64_t offset, uint64_t length) {
  const BlockState state = top.states->at(offset / kBlockSize);
  if (state == BlockState::kZero) return {};
  if (state == BlockState::kBase && is_zero_below(offset / kBlockSize)) return {};
  const Block zeros{};
  return write_part_of_block(offset, std::span(zeros).first(length));
}

Status CowDisk::State::zero_blocks(uint64_t first, uint64_t count) {
  bool in_file = false;
  for (uint64_t block = first; block < first + count && !in_file; ++block) {
    in_file = top.states->at(block) == BlockState::kWritten;
  }
  top.states->set(first, count, BlockState::kZero);
  if (!in_file) return {};
  STASIS_TRY_CONTEXT(fs.punch_hole(top.fd.get(), {first * kBlockSize, count * kBlockSize}), top.path.string());
  return {};
}

}  // namespace stasis::disk
