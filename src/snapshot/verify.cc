#include "snapshot/verify.h"

#include <algorithm>
#include <iterator>
#include <map>

namespace stasis::snapshot {
namespace {

constexpr uint64_t kMaxTold = 1000;  // a device that is gone damages everything

// No descriptor, no memory: that is this host's now, and says nothing of what is stored.
bool is_shortage(const Error& error) { return error.code == Code::kResourceExhausted; }

// Numbers of frames, first to last.
struct Run {
  uint32_t first = 0;
  uint32_t last = 0;
};

// What the snapshots expect of one layer.
struct Wanted {
  std::vector<SnapshotId> snapshots;
  std::vector<Run> runs;  // sorted and apart after normalise()

  void normalise() {
    std::sort(runs.begin(), runs.end(), [](const Run& a, const Run& b) { return a.first < b.first; });
    size_t kept = 0;
    for (const Run& run : runs) {
      if (kept > 0 && run.first <= runs[kept - 1].last + uint64_t{1}) {
        runs[kept - 1].last = std::max(runs[kept - 1].last, run.last);
      } else {
        runs[kept++] = run;
      }
    }
    runs.resize(kept);
  }
};

class Verification {
 public:
  Verification(const Store& store, const VerifyOptions& options, const VerifiedLayers* verified)
      : store_(store), options_(options), verified_(verified), limit_(options.limit), buffer_(kFrameSize) {}

  Result<VerifyReport> run(std::span<const SnapshotId> ids);

 private:
  Status plan(SnapshotId id);
  Status plan_layers();
  Status check_parts(SnapshotId id, const Manifest& manifest);
  Status check_layer(LayerId id, const Wanted& wanted);
  Status check_frames(Layer& layer, const Wanted& wanted);
  void check_holes(const Layer& layer, const Wanted& wanted);
  void want(SnapshotId id, const BlockMap& map);

  Status advance(uint64_t bytes);
  // Damage of what no snapshot needs any more is none: it was deleted, or replaced, meanwhile.
  void damaged_layer(LayerId layer, std::optional<uint64_t> frame, const Error& error, const Wanted& wanted);
  // For people: one that is missing has the name of a raw one.
  Path file_of(LayerId layer) const {
    const auto file = find_layer(store_.fs(), store_.layers_dir(), layer);
    return file ? file->path : layer_data_path(store_.layers_dir(), layer);
  }
  void damaged_part(SnapshotId snapshot, const Part& part, const Error& error);
  void tell(const Damage& damage);
  bool needs_layer(SnapshotId snapshot, LayerId layer) const;

  const Store& store_;
  const VerifyOptions& options_;
  const VerifiedLayers* verified_;
  RateLimit limit_;
  std::map<LayerId, Wanted> layers_;
  std::vector<std::pair<SnapshotId, Manifest>> manifests_;
  std::vector<std::byte> buffer_;
  VerifyProgress progress_;
  VerifyReport report_;
  bool whole_ = true;                                 // the layer being checked
  std::optional<std::vector<SnapshotId>> needed_by_;  // the same; found out when it is damaged
};

Result<VerifyReport> Verification::run(std::span<const SnapshotId> ids) {
  for (const SnapshotId id : ids) STASIS_TRY(plan(id));
  STASIS_TRY(plan_layers());
  for (const auto& [id, manifest] : manifests_) STASIS_TRY(check_parts(id, manifest));
  for (const auto& [id, wanted] : layers_) {
    STASIS_TRY(check_layer(id, wanted));
    options_.on_layer(id);
    ++progress_.layers;
  }
  report_.layers = layers_.size();
  report_.bytes = progress_.bytes;
  return report_;
}

Status Verification::plan(SnapshotId id) {
  STASIS_ASSIGN(const StoreLock lock, store_.lock_shared());
  auto manifest = store_.load(id);
  if (!manifest && (manifest.error().code == Code::kNotFound || is_shortage(manifest.error()))) {
    return fail(std::move(manifest).error());
  }
  ++report_.snapshots;
  if (!manifest) {
    tell({(store_.snapshot_dir(id) / kManifestFile).string(), std::nullopt, manifest.error().message, {id}});
    return {};
  }
  for (const Part& part : manifest->parts()) progress_.total_bytes += part.size;
  for (const Part& part : manifest->maps()) {
    auto map = store_.read_map(id, part);
    if (!map && is_shortage(map.error())) return fail(std::move(map).error());
    // A damaged map is reported with the other parts; what it needs is not known.
    if (map) want(id, *map);
  }
  manifests_.emplace_back(id, std::move(*manifest));
  return {};
}

void Verification::want(SnapshotId id, const BlockMap& map) {
  for (const LayerId layer : map.layers()) {
    auto& snapshots = layers_[layer].snapshots;
    if (snapshots.empty() || snapshots.back() != id) snapshots.push_back(id);
  }
  for (const Extent& extent : map.extents()) {
    if (extent.is_zero()) continue;
    layers_[extent.layer].runs.push_back(
        {static_cast<uint32_t>(extent.layer_offset / kFrameSize),
         static_cast<uint32_t>((extent.layer_offset + extent.length - 1) / kFrameSize)});
  }
  for (const LayerId layer : map.layers()) layers_[layer].normalise();
}

Status Verification::plan_layers() {
  if (options_.after != LayerId{}) layers_.erase(layers_.begin(), layers_.upper_bound(options_.after));
  progress_.total_layers = layers_.size();
  for (const auto& [id, wanted] : layers_) {
    // What cannot be opened is reported when its turn comes.
    const auto layer = Layer::open(store_.fs(), store_.layers_dir(), id);
    if (layer) progress_.total_bytes += (*layer)->frames().size() * kFrameSize;
    if (!options_.on_progress(progress_)) return fail(Code::kCancelled, "the verification was ended");
  }
  return {};
}

Status Verification::check_parts(SnapshotId id, const Manifest& manifest) {
  for (const Part& part : manifest.parts()) {
    Status checked = store_.verify_part(id, part);
    const bool is_map = part == manifest.memory_map || part == manifest.disk_map;
    if (checked && is_map) {
      if (auto map = store_.read_map(id, part); !map) checked = fail(std::move(map).error());
    }
    if (!checked && is_shortage(checked.error())) return checked;
    if (!checked) damaged_part(id, part, checked.error());
    STASIS_TRY(advance(part.size));
  }
  return {};
}

Status Verification::check_layer(LayerId id, const Wanted& wanted) {
  const auto before = verified_ != nullptr ? verified_->identity(id) : fail(Code::kUnknown, "");
  const auto layer = Layer::open(store_.fs(), store_.layers_dir(), id);
  if (!layer && is_shortage(layer.error())) return fail(layer.error());
  whole_ = true;
  needed_by_.reset();
  if (layer) {
    STASIS_TRY(check_frames(**layer, wanted));
    check_holes(**layer, wanted);
  } else {
    damaged_layer(id, std::nullopt, layer.error(), wanted);
  }
  if (verified_ == nullptr) return {};
  if (!whole_) verified_->forget(id);
  if (whole_ && before) (void)verified_->note(id, *before);  // a note that is not written costs time, nothing else
  return {};
}

Status Verification::check_frames(Layer& layer, const Wanted& wanted) {
  for (size_t i = 0; i < layer.frames().size(); ++i) {
    const auto length = layer.verify_frame(i, buffer_);
    if (!length && is_shortage(length.error())) return fail(length.error());
    if (!length) damaged_layer(layer.id(), layer.frames()[i], length.error(), wanted);
    ++report_.frames;
    STASIS_TRY(advance(length.value_or(kFrameSize)));
  }
  return {};
}

// Frames that a map points into and the layer does not have. `runs` and frames() are both sorted.
void Verification::check_holes(const Layer& layer, const Wanted& wanted) {
  const auto frames = layer.frames();
  auto at = frames.begin();
  for (const Run& run : wanted.runs) {
    at = std::lower_bound(at, frames.end(), run.first);
    uint64_t expected = run.first;
    while (expected <= run.last && at != frames.end() && *at == expected) ++at, ++expected;
    if (expected > run.last) continue;
    const std::string path = file_of(layer.id()).string();
    const Error error{Code::kDataLoss,
                      path + " has no data in frame " + std::to_string(expected) + ", where a block map points to"};
    damaged_layer(layer.id(), expected, error, wanted);
  }
}

Status Verification::advance(uint64_t bytes) {
  progress_.bytes += bytes;
  if (!options_.on_progress(progress_)) return fail(Code::kCancelled, "the verification was ended");
  return limit_.take(bytes);
}

bool Verification::needs_layer(SnapshotId snapshot, LayerId layer) const {
  const auto lock = store_.lock_shared();
  if (!lock) return true;  // better to tell of too much
  const auto manifest = store_.load(snapshot);
  if (!manifest) return manifest.error().code != Code::kNotFound;
  for (const Part& part : manifest->maps()) {
    const auto map = store_.read_map(snapshot, part);
    if (map && std::find(map->layers().begin(), map->layers().end(), layer) != map->layers().end()) return true;
  }
  return false;
}

void Verification::damaged_layer(LayerId layer, std::optional<uint64_t> frame, const Error& error,
                                 const Wanted& wanted) {
  whole_ = false;
  if (!needed_by_) {
    needed_by_.emplace();
    std::copy_if(wanted.snapshots.begin(), wanted.snapshots.end(), std::back_inserter(*needed_by_),
                 [&](SnapshotId snapshot) { return needs_layer(snapshot, layer); });
  }
  if (needed_by_->empty()) return;
  tell({file_of(layer).string(), frame, error.message, *needed_by_});
}

void Verification::damaged_part(SnapshotId snapshot, const Part& part, const Error& error) {
  const auto now = store_.load(snapshot);
  if (!now && now.error().code == Code::kNotFound) return;
  const std::vector<Part> parts = now ? now->parts() : std::vector<Part>{part};
  if (std::find(parts.begin(), parts.end(), part) == parts.end()) return;
  tell({(store_.snapshot_dir(snapshot) / part.file).string(), std::nullopt, error.message, {snapshot}});
}

void Verification::tell(const Damage& damage) {
  if (++report_.damages <= kMaxTold) options_.on_damage(damage);
}

}  // namespace

Result<VerifyReport> verify(const Store& store, std::span<const SnapshotId> ids, const VerifyOptions& options,
                            const VerifiedLayers* verified) {
  return Verification(store, options, verified).run(ids);
}

}  // namespace stasis::snapshot
