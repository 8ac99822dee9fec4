// A guest's memory, copied while the guest runs: block for block over its parent, in as many rounds as it takes until
// what has changed since the last one is little. It is a disk's write layer (disk/cow_disk.h) for another address
// space, and becomes a layer in the same way, without being copied again. Not thread-safe.
#pragma once

#include <memory>
#include <span>

#include "base/memory_source.h"
#include "disk/cow_disk.h"
#include "snapshot/capture.h"

namespace stasis::supervisor {

class LiveCopy {
 public:
  // `work_dir` is an empty directory on the store's file system; the caller removes it afterwards.
  static Result<LiveCopy> create(FileSystem& fs, std::shared_ptr<const snapshot::AddressSpace> parent, Path work_dir);

  // Copies blocks of the memory over what was copied of them before. Ranges are sorted, disjoint, of whole blocks.
  Status copy(const MemorySource& source, std::span<const Range> ranges);

  // The same for the last round, for which the guest stands still: what is read now is kept in memory and written by
  // seal(), so that the guest waits for no file system. More than 64 MiB is written at once.
  Status copy_last(const MemorySource& source, std::span<const Range> ranges);

  // Memory at the moment for which `changed` is everything that may differ from the parent (all of it copied), and
  // `removed` what reads as zeros unless it is in `changed`. What was copied and is in neither is zeros too. The guest
  // may run meanwhile. On failure nothing stays behind in layers_dir. Call once.
  Result<snapshot::CaptureResult> seal(const Path& layers_dir, std::span<const Range> changed,
                                       std::span<const Range> removed);

 private:
  LiveCopy(FileSystem& fs, std::unique_ptr<disk::CowDisk> blocks) : fs_(&fs), blocks_(std::move(blocks)) {}
  Status write(std::span<const Range> ranges, std::span<const std::byte> bytes);
  Status write_kept();
  Status discard(std::span<const Range> ranges);

  FileSystem* fs_;
  std::unique_ptr<disk::CowDisk> blocks_;
  std::vector<Range> copied_;     // sorted, disjoint
  std::vector<Range> kept_;       // of these, what is not written yet
  std::vector<std::byte> bytes_;  // of kept_, one after the other
};

}  // namespace stasis::supervisor
