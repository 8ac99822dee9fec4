// Warm bases: an image is booted once for each shape of machine, and the booted guest, before it has been given any
// identity, is kept as a snapshot; creating a sandbox of that shape then restores it instead of booting. Which snapshot
// belongs to which shape is written down in STATE/warm.json before the snapshot is taken, so that the next agent finds
// what a supervisor finishes without this one, and removes what was never finished. At most kMax are kept, and no more
// than the disk has room for (warm_room.h): the one that was not used for longest goes first, and those of a VMM that
// is not this host's any more before any. They belong to this host alone and are in no list of snapshots. Thread-safe.
#pragma once

#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/host_probe.h"
#include "snapshot/store.h"

namespace stasis::agent {

struct WarmKey {
  snapshot::SnapshotId image;
  uint32_t vcpus = 0;
  uint32_t memory_mib = 0;
  uint64_t disk_bytes = 0;  // 0: as the image; each size has its own
  std::string vmm;          // vmm::vmm_identity()
  friend auto operator<=>(const WarmKey&, const WarmKey&) = default;
};

class WarmBases {
 public:
  static constexpr size_t kMax = 8;

  using SpaceFunction = std::function<Result<DiskSpace>()>;  // of the store's file system

  // Removes what belongs to none of `images`. What is not published may still come, until settle(). A file that cannot
  // be read counts as empty.
  WarmBases(const snapshot::Store& store, Path file, std::span<const snapshot::SnapshotId> images, SpaceFunction space);

  std::optional<snapshot::SnapshotId> find(const WarmKey& key);
  // The id under which the caller is to take the snapshot, and then to say done(). Nothing if there is one already, if
  // somebody else is at it, or if the disk is short of space.
  std::optional<snapshot::SnapshotId> begin(const WarmKey& key);
  void done(const WarmKey& key, bool taken);
  // One that does not restore.
  void drop(const WarmKey& key);
  bool contains(snapshot::SnapshotId id) const;
  // No supervisor of a former agent is at it any more: what one has finished is a base, the rest is forgotten.
  void settle();

 private:
  struct Base {
    snapshot::SnapshotId id;
    enum class State { kReady, kBeingMade, kLeftByFormerAgent } state = State::kBeingMade;
    uint64_t used = 0;  // number of the last use
    bool ready() const { return state == State::kReady; }
  };
  void load();
  bool is_wanted(const WarmKey& key) const;
  Status save() const;
  void remove(const WarmKey& key);
  void remove_others_than(const std::string& vmm);
  std::vector<WarmKey> least_recently_used() const;  // first; those that are ready
  uint64_t stored_bytes(const Base& base) const;
  // The last `spared` stay.
  void fit_the_disk(const DiskSpace& space, size_t spared);
  bool has_space();
  void make_room();

  const snapshot::Store& store_;
  Path file_;
  std::vector<snapshot::SnapshotId> images_;
  SpaceFunction space_;
  mutable std::mutex mutex_;
  std::map<WarmKey, Base> bases_;
  uint64_t uses_ = 0;
};

}  // namespace stasis::agent
