// Sealing a CowDisk. Everything before the layer is adopted changes how the disk is stored but not what it reads, so a
// failure there needs no undoing; a failure afterwards moves the file back.
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

Result<SealResult> CowDisk::State::seal(const Path& layers_dir, snapshot::LayerId id) {
  STASIS_TRY_CONTEXT(normalise(), "compare with the parent");
  const std::vector<Change> changed = changes();
  const std::vector<Range> data = data_of(changed);
  STASIS_TRY_CONTEXT(trim(data), file.path.string());
  STASIS_ASSIGN(snapshot::BlockMap map, base->map().merge(id, changed));
  SealResult result{std::move(map), std::nullopt, states->written(), states->zeroed()};
  if (data.empty()) return seal_without_layer(layers_dir, std::move(result));
  return seal_into_layer(layers_dir, id, data, std::move(result));
}

// Afterwards a block is kWritten only if it differs from the base and is not zeros, and kZero only if the base has data
// there.
Status CowDisk::State::normalise() {
  uint64_t from = 0;
  while (const auto run = states->next_changed(from, kRegionBlocks)) {
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
  STASIS_TRY(read_file(range.offset, ours));
  // A parent that cannot be read counts as different: the new bytes are whole, and its damage is reported to who reads
  // it.
  const bool comparable = base->read(range.offset, parents).has_value();
  for (uint64_t i = 0; i < run.count; ++i) {
    const auto block = std::span(ours).subspan(i * kBlockSize, kBlockSize);
    const auto parent = std::span(parents).subspan(i * kBlockSize, kBlockSize);
    if (comparable && std::memcmp(block.data(), parent.data(), kBlockSize) == 0) {
      states->set(run.first + i, 1, BlockState::kBase);
    } else if (snapshot::is_zero(block)) {
      states->set(run.first + i, 1, BlockState::kZero);
    }
  }
  return {};
}

void CowDisk::State::normalise_zeroed(const BlockStates::Run& run) {
  const Range range = bytes_of(run);
  uint64_t offset = range.offset;
  while (offset < range.end()) {
    const snapshot::Extent extent = base->map().find(offset);
    const uint64_t end = std::min(extent.end(), range.end());
    if (extent.is_zero()) states->set(offset / kBlockSize, (end - offset) / kBlockSize, BlockState::kBase);
    offset = end;
  }
}

std::vector<Change> CowDisk::State::changes() const {
  std::vector<Change> result;
  uint64_t from = 0;
  while (const auto run = states->next_changed(from, size / kBlockSize)) {
    from = run->end();
    result.push_back({bytes_of(*run), run->state == BlockState::kZero});
  }
  return result;
}

// Frees what the file holds beside `keep`: blocks dropped by normalise(), and what failed writes left.
Status CowDisk::State::trim(std::span<const Range> keep) {
  STASIS_ASSIGN(const auto stored, fs.data_ranges(file.fd.get()));
  for (const Range& range : snapshot::subtract(stored, keep)) STASIS_TRY(fs.punch_hole(file.fd.get(), range));
  return {};
}

Result<SealResult> CowDisk::State::seal_without_layer(const Path& layers_dir, SealResult result) {
  STASIS_ASSIGN(auto next, AddressSpace::open(fs, layers_dir, result.map));
  STASIS_TRY(states->clear());
  base = std::move(next);
  return result;
}

Result<SealResult> CowDisk::State::seal_into_layer(const Path& layers_dir, snapshot::LayerId id,
                                                   std::span<const Range> data, SealResult result) {
  STASIS_ASSIGN(WriteFile fresh, make_write_file());
  auto adopt = [&]() -> Result<std::shared_ptr<AddressSpace>> {
    STASIS_ASSIGN(result.layer, adopt_layer(fs, file.path, layers_dir, id, size, data));
    auto opened = AddressSpace::open(fs, layers_dir, result.map);
    if (opened) {
      if (Status cleared = states->clear(); !cleared) opened = fail(std::move(cleared).error());
    }
    if (opened) return opened;
    (void)fs.rename(snapshot::layer_data_path(layers_dir, id), file.path);
    (void)fs.remove(snapshot::layer_sums_path(layers_dir, id));
    return opened;
  };
  auto next = adopt();
  if (!next) {
    (void)fs.remove(fresh.path);
    return fail(std::move(next).error().with_context("seal disk"));
  }
  base = std::move(*next);
  file = std::move(fresh);
  return result;
}

}  // namespace stasis::disk
