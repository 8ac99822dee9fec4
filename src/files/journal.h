// The journal of an ext3 or ext4 file system (JBD2), read as a kernel does that mounts the disk after a crash: what its
// whole transactions say about which blocks. Nothing is written and no block is copied: the answer is, for each block
// of the file system that the journal has a newer version of, the block of the journal that holds it. All numbers on
// disk are big-endian. Source: fs/jbd2/recovery.c and include/linux/jbd2.h of Linux 6.1. Every number in a journal is
// the guest's: work is bounded by the journal's length, which is bounded, and memory by the constants below.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <span>

#include "base/result.h"

namespace stasis::files {

inline constexpr uint64_t kMaxJournalBlocks = uint64_t{1} << 20;  // e2fsprogs makes at most 10 Mi, and by itself 256 Ki
inline constexpr uint64_t kMaxReplayedBlocks = uint64_t{1} << 20;  // different blocks of the file system
inline constexpr uint64_t kMaxRevokedBlocks = uint64_t{1} << 20;

// Where a journal's bytes come from. `block` counts within the journal, `out` is a whole block.
struct JournalSource {
  uint32_t block_size = 0;  // that of the file system, bytes
  uint64_t blocks = 0;      // that the journal's inode has
  std::function<Status(uint64_t block, std::span<std::byte> out)> read;
};

struct ReplayedBlock {
  uint64_t journal_block = 0;
  bool escaped = false;  // its first four bytes are zeros in the journal, and the journal's magic on the disk
  friend bool operator==(const ReplayedBlock&, const ReplayedBlock&) = default;
};

// What stands in an escaped block's first four bytes on the disk.
inline constexpr uint32_t kJournalMagic = 0xC03B3998;

using Replay = std::map<uint64_t, ReplayedBlock>;  // by block of the file system

// Nothing if the journal is empty. A transaction that is not whole, or what is left of older ones, ends it, as in the
// kernel. kDataLoss for what a kernel refuses to mount; kUnimplemented for fast commits, and for features that this
// code does not know; kResourceExhausted beyond the limits.
Result<Replay> read_journal(const JournalSource& source, uint64_t file_system_blocks);

}  // namespace stasis::files
