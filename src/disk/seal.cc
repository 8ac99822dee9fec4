// Sealing a CowDisk. Everything before the layer is adopted changes how the frozen layer is stored but not what it
// reads, so a failure there needs no undoing; a failure afterwards moves the file back.
#include <algorithm>
#include <cstring>
#include <vector>

#include "disk/cow_disk_state.h"
#include "snapshot/ranges.h"

namespace stasis::disk {
namespace {

using snapshot::AddressSpace;
using snapshot::Change;
using snapshot::kBlockSize;

Range bytes_of(const BlockStates::Run& run) { return {run.first * kBlockSize, run.count * kBlockSize}; }

std::vector<Range> data_of(std::span<const Change> changes) {
  std::vector<Range> result;
  for (const Change& change : changes) {
    if (!change.zero) result.push_back(change.range);
  }
  return result;
}

}  // namespace

Status CowDisk::State::prepare_freeze() {
  if (prepared) return {};
  STASIS_ASSIGN(prepared, make_write_layer());
  return {};
}

Status CowDisk::State::freeze() {
  STASIS_TRY_CONTEXT(thaw(), "take together what was frozen before");
  STASIS_TRY(prepare_freeze());
  const AllLocks locked = lock_all();
  frozen = std::exchange(top, std::move(*prepared));
  prepared.reset();
  return {};
}

// What was written since the freeze goes into the frozen layer, which is then the only one. Until all of it is there
// the disk reads it from above.
Status CowDisk::State::thaw() {
  if (!frozen) return {};
  const AllLocks locked = lock_all();
  STASIS_TRY(copy_changes(top, *frozen));
  (void)fs.remove(top.path);
  top = std::move(*frozen);
  frozen.reset();
  return {};
}

Status CowDisk::State::copy_changes(const WriteLayer& from, WriteLayer& to) {
  uint64_t block = 0;
  while (const auto run = from.states->next_changed(block, kRegionBlocks)) {
    block = run->end();
    if (run->state == BlockState::kWritten) {
      const Range range = bytes_of(*run);
      std::vector<std::byte> bytes(range.length);
      STASIS_TRY(read_file(from, range.offset, bytes));
      STASIS_TRY_CONTEXT(fs.write_at(to.fd.get(), range.offset, bytes), to.path.string());
    }
    to.states->set(run->first, run->count, run->state);
  }
  return {};
}

Status CowDisk::State::renew_frozen() {
  if (!frozen->spoilt) return {};
  STASIS_ASSIGN(WriteLayer copy, make_write_layer());
  if (Status copied = copy_changes(*frozen, copy); !copied) {
    (void)fs.remove(copy.path);
    return copied;
  }
  (void)fs.remove(frozen->path);
  WriteLayer spoilt;  // closed once the guest's reads and writes go on
  const AllLocks locked = lock_all();
  spoilt = std::exchange(*frozen, std::move(copy));
  return {};
}

Result<SealResult> CowDisk::State::seal_frozen(const Path& layers_dir, snapshot::LayerId id, const KeepMap& keep) {
  if (!frozen) return fail(Code::kFailedPrecondition, "nothing of this disk is frozen");
  auto sealed = try_to_seal(layers_dir, id, keep);
  if (sealed) return sealed;
  // What a device did not take is in memory still, but not for long. If this fails, the next seal does it.
  (void)renew_frozen();
  // If this fails as well, the frozen layer stays below and the next freeze tries again.
  (void)thaw();
  return sealed;
}

Result<SealResult> CowDisk::State::try_to_seal(const Path& layers_dir, snapshot::LayerId id, const KeepMap& keep) {
  STASIS_TRY_CONTEXT(renew_frozen(), "copy what could not be stored");
  STASIS_TRY_CONTEXT(normalise(), "compare with the parent");
  const std::vector<Change> changed = changes();
  const std::vector<Range> data = data_of(changed);
  STASIS_TRY_CONTEXT(trim(data), frozen->path.string());
  STASIS_ASSIGN(snapshot::BlockMap map, base->map().merge(id, changed));
  SealResult result{std::move(map), std::nullopt, frozen->states->written(), frozen->states->zeroed()};
  auto next =
      data.empty() ? AddressSpace::open(fs, layers_dir, result.map, base.get()) : adopt(layers_dir, id, data, result);
  if (!next) return fail(std::move(next).error().with_context("seal disk"));
  if (Status kept = keep(result.map); !kept) {
    if (result.layer) take_back(layers_dir, id);
    return fail(std::move(kept).error().with_context("write down what the disk stands on"));
  }
  if (data.empty()) (void)fs.remove(frozen->path);
  // Closed once the guest's reads and writes go on: that unmaps layers and tables.
  std::shared_ptr<const AddressSpace> old_base;
  std::optional<WriteLayer> sealed;
  const AllLocks locked = lock_all();
  old_base = std::exchange(base, std::move(*next));
  sealed = std::exchange(frozen, std::nullopt);
  return result;
}

// Afterwards a block of the frozen layer is kWritten only if it differs from the base and is not zeros, and kZero only
// if the base has data there.
Status CowDisk::State::normalise() {
  uint64_t from = 0;
  while (auto run = frozen->states->next_changed(from, kRegionBlocks)) {
    run->count = std::min(run->count, kRegionBlocks - run->first % kRegionBlocks);  // one lock's
    from = run->end();
    if (run->state == BlockState::kZero) normalise_zeroed(*run);
    if (run->state == BlockState::kWritten) STASIS_TRY(normalise_written(*run));
  }
  return {};
}

Status CowDisk::State::normalise_written(const BlockStates::Run& run) {
  const Range range = bytes_of(run);
  std::vector<std::byte> ours(range.length);
  std::vector<std::byte> parents(range.length);
  STASIS_TRY(read_file(*frozen, range.offset, ours));
  // A parent that cannot be read counts as different: the new bytes are whole, and its damage is reported to who reads
  // it.
  const bool comparable = base->read(range.offset, parents).has_value();
  const std::unique_lock lock(lock_of(range.offset));
  for (uint64_t i = 0; i < run.count; ++i) {
    const auto block = std::span(ours).subspan(i * kBlockSize, kBlockSize);
    const auto parent = std::span(parents).subspan(i * kBlockSize, kBlockSize);
    if (comparable && std::memcmp(block.data(), parent.data(), kBlockSize) == 0) {
      frozen->states->set(run.first + i, 1, BlockState::kBase);
    } else if (snapshot::is_zero(block)) {
      frozen->states->set(run.first + i, 1, BlockState::kZero);
    }
  }
  return {};
}

void CowDisk::State::normalise_zeroed(const BlockStates::Run& run) {
  const Range range = bytes_of(run);
  const std::unique_lock lock(lock_of(range.offset));
  uint64_t offset = range.offset;
  while (offset < range.end()) {
    const snapshot::Extent extent = base->map().find(offset);
    const uint64_t end = std::min(extent.end(), range.end());
    if (extent.is_zero()) {
      frozen->states->set(offset / kBlockSize, (end - offset) / kBlockSize, BlockState::kBase);
    }
    offset = end;
  }
}

std::vector<Change> CowDisk::State::changes() const {
  std::vector<Change> result;
  uint64_t from = 0;
  while (const auto run = frozen->states->next_changed(from, size / kBlockSize)) {
    from = run->end();
    result.push_back({bytes_of(*run), run->state == BlockState::kZero});
  }
  return result;
}

// Frees what the file holds beside `keep`: blocks dropped by normalise(), and what failed writes left. No reader looks
// there: each has seen the states that normalise() left, or has gone before it had the region's lock.
Status CowDisk::State::trim(std::span<const Range> keep) {
  STASIS_ASSIGN(const auto stored, fs.data_ranges(frozen->fd.get()));
  for (const Range& range : snapshot::subtract(stored, keep)) STASIS_TRY(fs.punch_hole(frozen->fd.get(), range));
  return {};
}

Result<std::shared_ptr<AddressSpace>> CowDisk::State::adopt(const Path& layers_dir, snapshot::LayerId id,
                                                            std::span<const Range> data, SealResult& result) {
  STASIS_ASSIGN(result.layer, adopt_layer(fs, frozen->path, layers_dir, id, size, data, &frozen->spoilt));
  auto opened = AddressSpace::open(fs, layers_dir, result.map, base.get());
  if (!opened) take_back(layers_dir, id);
  return opened;
}

void CowDisk::State::take_back(const Path& layers_dir, snapshot::LayerId id) {
  frozen->spoilt = !fs.rename(snapshot::layer_data_path(layers_dir, id), frozen->path);
  (void)fs.remove(snapshot::layer_sums_path(layers_dir, id));
}

}  // namespace stasis::disk
