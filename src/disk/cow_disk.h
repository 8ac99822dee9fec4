// A sandbox's disk: the content of an immutable AddressSpace under a private, sparse write layer with a bitmap of what
// has been written or zeroed since. Any number of threads may read and write. Sealing turns the write layer into an
// immutable layer of the store, without a copy, and goes on above it with a fresh one: a pause seals and ends; a
// snapshot of a running sandbox freezes the write layer while the guest is stopped and seals it while the guest goes
// on. One thread seals. Durability is the snapshot's: flush() does not sync the write layer, which belongs to a running
// sandbox and dies with it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <span>
#include <vector>

#include "snapshot/capture.h"
#include "snapshot/layer.h"

namespace stasis::disk {

struct DiskStats {
  uint64_t blocks_written = 0;  // in the write layer now
  uint64_t blocks_zeroed = 0;   // discarded or zeroed since the last seal
};

struct SealResult {
  snapshot::BlockMap map;                    // the next generation
  std::optional<snapshot::LayerInfo> layer;  // absent if no block is stored
  uint64_t blocks_stored = 0;
  uint64_t blocks_zeroed = 0;
};

class CowDisk {
 public:
  // `work_dir` is a directory on the store's file system where write layers are made (write.0, write.1, ...); it must
  // hold none. The disk's destructor removes the one in use.
  static Result<std::unique_ptr<CowDisk>> create(FileSystem& fs, std::shared_ptr<const snapshot::AddressSpace> base,
                                                 Path work_dir);
  ~CowDisk();
  CowDisk(const CowDisk&) = delete;
  CowDisk& operator=(const CowDisk&) = delete;

  uint64_t size() const;
  DiskStats stats() const;
  // Any offset and length within size(); kOutOfRange beyond.
  Status read(uint64_t offset, std::span<std::byte> out) const;
  Status write(uint64_t offset, std::span<const std::byte> data);
  // The range reads as zeros from now on. Whole blocks take no space; edges are written as zeros.
  Status discard(uint64_t offset, uint64_t length);

  // Has what was written until now on the device, so that a seal that follows soon has less to wait for.
  Status write_back();
  // Makes ready what the next freeze() needs, so that a guest need not stand still for it.
  Status prepare_freeze();
  // What has been written until now is what seal_frozen() seals; what is written from now on is apart from it. The
  // caller has stopped the guest: no read or write is under way. What an earlier freeze() left unsealed is sealed with
  // it. On failure the disk is as it was before.
  Status freeze();
  // Seals what is frozen into layers_dir as layer `id`; reads and writes may go on. Blocks equal to their parent's are
  // dropped from the map and blocks of zeros become zero extents. Continues above the new map once `keep` has written
  // it down where a collection finds it: nothing else keeps the layer that this disk then needs. On failure, of `keep`
  // too, nothing stays in layers_dir and the disk reads as before; what was frozen is part of the next freeze().
  using KeepMap = std::function<Status(const snapshot::BlockMap&)>;
  Result<SealResult> seal_frozen(const Path& layers_dir, snapshot::LayerId id, const KeepMap& keep);
  // Both at once; the caller keeps what is in layers_dir.
  Result<SealResult> seal(const Path& layers_dir, snapshot::LayerId id);
  // The map that the disk stands on now (of its last seal, or its base).
  const snapshot::BlockMap& map() const;

 private:
  struct State;
  explicit CowDisk(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace stasis::disk
