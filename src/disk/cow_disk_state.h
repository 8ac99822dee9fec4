// The inside of a CowDisk, shared by cow_disk.cc (reading and writing) and seal.cc.
//
// Locks: the disk is cut into regions of kRegionBlocks blocks; region r is guarded by locks[r % kLocks]. A read holds
// its region's lock shared, a change exclusively, one region at a time. Sealing holds all of them. `states` words never
// span two regions, so the locks guard them too.
#pragma once

#include <array>
#include <memory>
#include <shared_mutex>

#include "disk/block_states.h"
#include "disk/cow_disk.h"

namespace stasis::disk {

inline constexpr uint64_t kRegionBlocks = 256;  // 1 MiB: the largest request that FUSE makes
inline constexpr uint64_t kRegionSize = kRegionBlocks * snapshot::kBlockSize;
static_assert(kRegionBlocks % BlockStates::kBlocksPerWord == 0);

struct CowDisk::State {
  static constexpr size_t kLocks = 64;

  // The file of a write layer: everything that is not known to be kWritten in it is rubbish or a hole.
  struct WriteFile {
    Path path;
    UniqueFd fd;
  };

  State(FileSystem& file_system, std::shared_ptr<const snapshot::AddressSpace> base_space, Path dir)
      : fs(file_system), work_dir(std::move(dir)), size(base_space->size()), base(std::move(base_space)) {}

  std::shared_mutex& lock_of(uint64_t offset) { return locks[offset / kRegionSize % kLocks]; }
  Result<WriteFile> make_write_file();

  // Each works inside one region whose lock is held.
  Status read_piece(uint64_t offset, std::span<std::byte> out) const;
  Status write_piece(uint64_t offset, std::span<const std::byte> data);
  Status discard_piece(uint64_t offset, uint64_t length);

  Status read_base(uint64_t offset, std::span<std::byte> out) const;
  Status read_file(uint64_t offset, std::span<std::byte> out) const;
  Status write_part_of_block(uint64_t offset, std::span<const std::byte> data);
  Status zero_part_of_block(uint64_t offset, uint64_t length);
  Status zero_blocks(uint64_t first, uint64_t count);

  // Sealing (seal.cc); all locks are held.
  Result<SealResult> seal(const Path& layers_dir, snapshot::LayerId id);
  Status normalise();
  Status normalise_written(const BlockStates::Run& run);
  void normalise_zeroed(const BlockStates::Run& run);
  std::vector<snapshot::Change> changes() const;
  Status trim(std::span<const Range> keep);
  Result<SealResult> seal_without_layer(const Path& layers_dir, SealResult result);
  Result<SealResult> seal_into_layer(const Path& layers_dir, snapshot::LayerId id, std::span<const Range> data,
                                     SealResult result);

  FileSystem& fs;
  const Path work_dir;
  const uint64_t size;
  std::shared_ptr<const snapshot::AddressSpace> base;
  std::unique_ptr<BlockStates> states;
  WriteFile file;
  uint64_t next_file = 0;
  std::array<std::shared_mutex, kLocks> locks;
};

}  // namespace stasis::disk
