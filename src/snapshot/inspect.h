// What a snapshot consists of, for people: its parents, and of each address space the extents, the layers they come
// from, what of it is zeros, what it shares, and a picture of it. Nothing here reads data, only manifests and block
// maps. Needs no lock: the answer is that of one moment. kNotFound if there is no such snapshot; kDataLoss if its
// manifest or a map of its own is damaged.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "snapshot/holders.h"

namespace stasis::snapshot {

// A layer as one block map uses it.
struct LayerUse {
  LayerId id;
  uint64_t generation = 0;    // the first, of those known, whose map names it; of deleted ones nothing is known
  uint64_t mapped_bytes = 0;  // of the address space that come from it
  uint64_t extents = 0;
  uint64_t stored_bytes = 0;  // the whole layer on the device
  LayerForm form = LayerForm::kRaw;
  bool shared = false;  // another snapshot, an image or a sandbox needs it too
};

struct SpaceDetail {
  std::string name;  // "memory", "disk"
  BlockMap::Metadata metadata;
  uint64_t extents = 0;  // of data and of zeros
  uint64_t data_bytes = 0;
  uint64_t zero_bytes = 0;
  uint64_t own_bytes = 0;        // on the device, of layers that nobody else needs
  uint64_t shared_bytes = 0;     // of the others
  double fragmentation = 0;      // 0: all data in one run; 1: no two blocks that follow each other are together
  std::vector<LayerUse> layers;  // oldest first
  // The address space in equal cells: which of `layers`, from 1, most of a cell's bytes come from; 0: zeros.
  std::vector<uint32_t> cells;
};

struct SnapshotDetail {
  Manifest manifest;
  std::vector<SpaceDetail> spaces;
  uint64_t part_bytes = 0;  // on the device: state, maps, kernel
  uint64_t own_bytes = 0;   // what deleting it gives back
  uint64_t shared_bytes = 0;
};

// `sandboxes`: those that run, for what is shared. At most `cells` cells for each address space.
Result<SnapshotDetail> inspect(const Store& store, SnapshotId id, std::span<const SandboxMaps> sandboxes, size_t cells);

// One snapshot of a line of parents.
struct Ancestor {
  SnapshotId id;
  std::optional<Manifest> manifest;  // absent: it was deleted, or is damaged; the line ends here
};

// The snapshot itself, its parent, and so on to the first.
Result<std::vector<Ancestor>> lineage(const Store& store, SnapshotId id);

}  // namespace stasis::snapshot
