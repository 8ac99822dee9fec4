// The inside of a CowDisk, shared by cow_disk.cc (reading and writing) and seal.cc.
//
// What a block reads as is told by the first of these that has it: `top`, `frozen` (while that is being sealed),
// `base`.
//
// Locks: the disk is cut into regions of kRegionBlocks blocks; region r is guarded by locks[r % kLocks]. A read holds
// its region's lock shared, a change exclusively, one region at a time. Who puts another layer or base in its place
// holds all of them. Words of a layer's states never span two regions, so the locks guard them too. The file of
// `frozen` changes only where no reader looks any more.
#pragma once

#include <array>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>

#include "disk/block_states.h"
#include "disk/cow_disk.h"

namespace stasis::disk {

inline constexpr uint64_t kRegionBlocks = 256;  // 1 MiB: the largest request that FUSE makes
inline constexpr uint64_t kRegionSize = kRegionBlocks * snapshot::kBlockSize;
static_assert(kRegionBlocks % BlockStates::kBlocksPerWord == 0);

struct CowDisk::State {
  static constexpr size_t kLocks = 64;

  // A file, and what of it counts: everything that is not kWritten is rubbish or a hole in it.
  struct WriteLayer {
    Path path;
    UniqueFd fd;
    std::unique_ptr<BlockStates> states;
    bool spoilt = false;  // no layer can be made of this file, only of a copy (adopt_layer())
  };

  State(FileSystem& file_system, std::shared_ptr<const snapshot::AddressSpace> base_space, Path dir)
      : fs(file_system), work_dir(std::move(dir)), size(base_space->size()), base(std::move(base_space)) {}

  std::shared_mutex& lock_of(uint64_t offset) { return locks[offset / kRegionSize % kLocks]; }
  using AllLocks = std::array<std::unique_lock<std::shared_mutex>, kLocks>;
  AllLocks lock_all();
  Result<WriteLayer> make_write_layer();

  // Each works inside one region whose lock is held.
  Status read_piece(uint64_t offset, std::span<std::byte> out) const;
  Status write_piece(uint64_t offset, std::span<const std::byte> data);
  Status discard_piece(uint64_t offset, uint64_t length);

  template <typename Below>
  Status read_layer(const WriteLayer& layer, uint64_t offset, std::span<std::byte> out, Below below) const;
  Status read_base(uint64_t offset, std::span<std::byte> out) const;
  Status read_file(const WriteLayer& layer, uint64_t offset, std::span<std::byte> out) const;
  bool is_zero_below(uint64_t block) const;
  Status write_part_of_block(uint64_t offset, std::span<const std::byte> data);
  Status zero_part_of_block(uint64_t offset, uint64_t length);
  Status zero_blocks(uint64_t first, uint64_t count);

  // Sealing (seal.cc); no lock is held.
  Status prepare_freeze();
  Status freeze();
  Status thaw();
  Result<SealResult> seal_frozen(const Path& layers_dir, snapshot::LayerId id, const KeepMap& keep);
  Result<SealResult> try_to_seal(const Path& layers_dir, snapshot::LayerId id, const KeepMap& keep);
  Status renew_frozen();
  Status copy_changes(const WriteLayer& from, WriteLayer& to);
  Status normalise();
  Status normalise_written(const BlockStates::Run& run);
  void normalise_zeroed(const BlockStates::Run& run);
  std::vector<snapshot::Change> changes() const;
  Status trim(std::span<const Range> keep);
  Result<std::shared_ptr<snapshot::AddressSpace>> adopt(const Path& layers_dir, snapshot::LayerId id,
                                                        std::span<const Range> data, SealResult& result);
  void take_back(const Path& layers_dir, snapshot::LayerId id);

  FileSystem& fs;
  const Path work_dir;
  const uint64_t size;
  std::shared_ptr<const snapshot::AddressSpace> base;
  WriteLayer top;
  std::optional<WriteLayer> frozen;
  std::optional<WriteLayer> prepared;  // for the next freeze(); nothing is in it
  uint64_t next_file = 0;
  std::array<std::shared_mutex, kLocks> locks;
};

}  // namespace stasis::disk
