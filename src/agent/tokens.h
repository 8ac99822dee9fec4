// The guest daemon's access token that a snapshot's memory holds: a clone that gets a new one must show the old one.
// Kept in STATE/tokens/<snapshot id>, mode 0600.
#pragma once

#include <functional>

#include "base/file_system.h"
#include "snapshot/manifest.h"

namespace stasis::agent {

class Tokens {
 public:
  static Result<Tokens> open(Path directory);
  Status keep(snapshot::SnapshotId id, const std::string& token) const;
  // Empty if none is kept.
  std::string find(snapshot::SnapshotId id) const;
  void forget(snapshot::SnapshotId id) const;
  // Forgets those of snapshots that were never published.
  void sweep(const std::function<bool(snapshot::SnapshotId)>& is_published) const;

 private:
  explicit Tokens(Path directory) : directory_(std::move(directory)) {}
  Path directory_;
};

}  // namespace stasis::agent
