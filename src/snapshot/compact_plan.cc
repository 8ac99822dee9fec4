#include "snapshot/compact_plan.h"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

namespace stasis::snapshot {
namespace {

bool mostly_dead(const SpaceUse& use) { return use.layers > 0 && snapshot::mostly_dead(use.own_bytes, use.live_bytes); }

// Reading through a long chain is paid by who restores: the newest snapshot of a line, and those that are started.
bool long_chain(const SnapshotUse& snapshot, const SpaceUse& use) {
  return use.layers > kLongChain && (!snapshot.has_children || snapshot.starts > 0);
}

class Survey {
 public:
  explicit Survey(const Store& store) : store_(store) {}

  // Asked of the directory once: a store has more layers in its maps than files.
  Status find_packed() {
    STASIS_ASSIGN(const auto names, store_.fs().list(store_.layers_dir()));
    for (const std::string& name : names) {
      const auto uuid = Uuid::parse(Path(name).stem().string());
      if (uuid && name.ends_with(".packed")) packed_.insert(*uuid);
    }
    return {};
  }

  void add_root(const BlockMap& map) {
    for (const LayerId layer : map.layers()) ++users_[layer.uuid];
  }

  Status add(SnapshotId id, uint64_t starts) {
    STASIS_ASSIGN(const StoreLock lock, store_.lock_shared());
    STASIS_ASSIGN(const Manifest manifest, store_.load(id));
    uses_.push_back({id, manifest.created_unix_ms, false, starts, {}, {}});
    layers_.emplace_back();
    parents_.insert(manifest.parent.uuid);
    STASIS_TRY(add_space(id, manifest.memory_map, uses_.back().memory, layers_.back().memory));
    return add_space(id, manifest.disk_map, uses_.back().disk, layers_.back().disk);
  }

  std::vector<SnapshotUse> finish() {
    for (size_t i = 0; i < uses_.size(); ++i) {
      uses_[i].has_children = parents_.contains(uses_[i].id.uuid);
      uses_[i].memory.own_bytes = own_bytes(layers_[i].memory);
      uses_[i].disk.own_bytes = own_bytes(layers_[i].disk);
    }
    return std::move(uses_);
  }

 private:
  struct Layers {
    std::vector<LayerId> memory;
    std::vector<LayerId> disk;
  };

  Status add_space(SnapshotId id, const std::optional<Part>& part, SpaceUse& use, std::vector<LayerId>& layers) {
    if (!part) return {};
    STASIS_ASSIGN(const BlockMap map, store_.read_map(id, *part));
    layers.assign(map.layers().begin(), map.layers().end());
    use.layers = layers.size();
    use.packed = std::any_of(layers.begin(), layers.end(), [&](LayerId layer) { return packed_.contains(layer.uuid); });
    use.live_bytes = live_bytes(map);
    add_root(map);
    return {};
  }

  uint64_t own_bytes(const std::vector<LayerId>& layers) const {
    uint64_t bytes = 0;
    for (const LayerId layer : layers) {
      if (users_.at(layer.uuid) > 1) continue;
      if (const auto file = find_layer(store_.fs(), store_.layers_dir(), layer)) bytes += file->info.stored_bytes;
    }
    return bytes;
  }

  const Store& store_;
  std::vector<SnapshotUse> uses_;
  std::vector<Layers> layers_;  // of uses_
  std::unordered_map<Uuid, uint64_t> users_;
  std::unordered_set<Uuid> parents_;
  std::unordered_set<Uuid> packed_;
};

}  // namespace

std::vector<CompactPlan> plan_compactions(const std::vector<SnapshotUse>& uses, int64_t now_unix_ms) {
  std::vector<CompactPlan> plans;
  for (const SnapshotUse& use : uses) {
    const bool often = use.starts >= kStartedOften;
    if (!often && now_unix_ms - use.created_unix_ms < kSettledMs) continue;
    CompactPlan plan{use.id, false, false, use.starts, 0};
    // Only memory is mapped, and what was packed to be small is not unpacked for that. A disk keeps the layer of its
    // image, which every clone of the image has in the page cache.
    plan.memory = (often && use.memory.layers > 1 && !use.memory.packed) || long_chain(use, use.memory) ||
                  mostly_dead(use.memory);
    plan.disk = long_chain(use, use.disk) || mostly_dead(use.disk);
    if (plan.memory) plan.live_bytes += use.memory.live_bytes;
    if (plan.disk) plan.live_bytes += use.disk.live_bytes;
    if (plan.memory || plan.disk) plans.push_back(plan);
  }
  std::stable_sort(plans.begin(), plans.end(),
                   [](const CompactPlan& a, const CompactPlan& b) { return a.starts > b.starts; });
  return plans;
}

Result<std::vector<SnapshotUse>> survey(const Store& store, std::span<const BlockMap> roots,
                                        const std::function<uint64_t(SnapshotId)>& starts) {
  Survey survey(store);
  STASIS_TRY(survey.find_packed());
  for (const BlockMap& map : roots) survey.add_root(map);
  STASIS_ASSIGN(const auto ids, store.list());
  for (const SnapshotId id : ids) (void)survey.add(id, starts(id));  // what cannot be read is a verification's business
  return survey.finish();
}

}  // namespace stasis::snapshot
