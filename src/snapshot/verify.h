// Verification: every frame of every layer that some snapshots need, and each of their parts, read and held against its
// checksum; and that no block map points to where a layer holds nothing. What is read is what a restore would read: the
// page cache where it holds the layer, else the device. Layers that several snapshots share are read once.
// Needs no lock: what is deleted, or replaced by a compaction, meanwhile is passed over, not reported. Memory grows
// with the extents of one map and the runs of frames that the maps name, not with the data.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/rate_limit.h"
#include "snapshot/store.h"
#include "snapshot/verified.h"

namespace stasis::snapshot {

struct Damage {
  std::string file;               // path
  std::optional<uint64_t> frame;  // of a layer; absent: the file as a whole
  std::string message;
  std::vector<SnapshotId> snapshots;  // of those asked for, the ones that need it
};

struct VerifyProgress {
  uint64_t bytes = 0;  // read and checked so far
  uint64_t total_bytes = 0;
  uint64_t layers = 0;  // done
  uint64_t total_layers = 0;
};

struct VerifyOptions {
  RateLimit limit;  // of bytes read, and what cancels
  LayerId after;    // leaves out the layers up to this one; parts of snapshots are always checked
  // Told after each frame and part, in the calling thread; false ends the verification with kCancelled.
  std::function<bool(const VerifyProgress&)> on_progress = [](const VerifyProgress&) { return true; };
  std::function<void(const Damage&)> on_damage = [](const Damage&) {};  // the first 1,000
  // Told after each layer, whole or not: all up to this one, in the order of ids, are done.
  std::function<void(LayerId)> on_layer = [](LayerId) {};
};

struct VerifyReport {
  uint64_t snapshots = 0;
  uint64_t layers = 0;
  uint64_t frames = 0;
  uint64_t bytes = 0;
  uint64_t damages = 0;  // all of them
};

// `verified`: gets a note of each layer that is whole, and loses that of one that is not. Damage is no error; an error
// is what kept the verification from its end, among it a host that has no descriptor or memory left
// (kResourceExhausted). kNotFound if one of `ids` does not exist when it begins.
Result<VerifyReport> verify(const Store& store, std::span<const SnapshotId> ids, const VerifyOptions& options,
                            const VerifiedLayers* verified = nullptr);

}  // namespace stasis::snapshot
