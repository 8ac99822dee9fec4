// Who needs which layers: the snapshots and images of a store, and the sandboxes that run on it. What the numbers of
// `stasis store df` and `stasis snapshot inspect` stand on. Bytes are those allocated on the device. Needs no lock: the
// answer is that of one moment, and of nobody's work in progress.
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "snapshot/store.h"

namespace stasis::snapshot {

// A running sandbox and the block maps that it stands on.
struct SandboxMaps {
  std::string id;
  std::vector<BlockMap> maps;
};

struct Holder {
  enum class Kind { kImage, kSnapshot, kSandbox };
  Kind kind = Kind::kSnapshot;
  std::string id;
  SnapshotId parent;            // of a snapshot
  int64_t created_unix_ms = 0;  // of a snapshot
  uint64_t part_bytes = 0;      // state, maps, kernel
  std::vector<LayerId> layers;  // each once, sorted
  std::string damage;           // why nothing is known of it; empty: all is well
};

// What is in `layers/`.
struct StoredLayer {
  uint64_t stored_bytes = 0;  // data and checksums
  LayerForm form = LayerForm::kRaw;
  int64_t written_unix_ns = 0;
};

Result<std::vector<Holder>> find_holders(const Store& store, std::span<const SandboxMaps> sandboxes);
Result<std::map<LayerId, StoredLayer>> stored_layers(const Store& store);

struct HolderUsage {
  Holder holder;
  uint64_t own_bytes = 0;     // its parts, and layers that nobody else needs: what deleting it gives back
  uint64_t shared_bytes = 0;  // layers that others need too
};

struct StoreUsage {
  std::vector<HolderUsage> holders;
  uint64_t layers = 0;
  uint64_t total_bytes = 0;  // everything in the store
};

Result<StoreUsage> measure_usage(const Store& store, std::span<const SandboxMaps> sandboxes);

}  // namespace stasis::snapshot
