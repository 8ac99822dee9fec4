// Host: looking at the store, and cleaning it on request.
#include <tuple>

#include "agent/host.h"
#include "agent/roots.h"
#include "base/clock.h"
#include "files/run.h"

namespace stasis::agent {
namespace {

using snapshot::SnapshotId;

constexpr Milliseconds kTurnInterval{200};  // between two questions whether to go on waiting for one's turn

// The same address space of two snapshots.
struct Pair {
  const char* name;
  std::shared_ptr<snapshot::AddressSpace> left;
  std::shared_ptr<snapshot::AddressSpace> right;
  Host::Difference difference() const { return {name, left ? left->size() : 0, right ? right->size() : 0, {}, {}}; }
};

// An address space of one side of a comparison; nothing if the snapshot has none of that name.
Result<std::shared_ptr<snapshot::AddressSpace>> open_space(const snapshot::Store& store, SnapshotId id,
                                                           const std::optional<snapshot::Part>& part) {
  if (!part) return nullptr;
  STASIS_ASSIGN(snapshot::BlockMap map, store.read_map(id, *part));
  return snapshot::AddressSpace::open(store.fs(), store.layers_dir(), std::move(map));
}

// Against a snapshot without such an address space: all zeros.
Result<std::shared_ptr<snapshot::AddressSpace>> empty_space(const snapshot::Store& store, uint64_t size) {
  STASIS_ASSIGN(snapshot::BlockMap map, snapshot::BlockMap::zeros(size));
  return snapshot::AddressSpace::open(store.fs(), store.layers_dir(), std::move(map));
}

// What both have. It stays readable, whatever becomes of the snapshots.
Result<std::vector<Pair>> open_pairs(const snapshot::Store& store, SnapshotId from, SnapshotId to) {
  STASIS_ASSIGN(const snapshot::StoreLock lock, store.lock_shared());
  STASIS_ASSIGN(const snapshot::Manifest before, store.load(from));
  STASIS_ASSIGN(const snapshot::Manifest after, store.load(to));
  const std::tuple<const char*, const std::optional<snapshot::Part>&, const std::optional<snapshot::Part>&> spaces[] = {
      {"memory", before.memory_map, after.memory_map}, {"disk", before.disk_map, after.disk_map}};
  std::vector<Pair> pairs;
  for (const auto& [name, left_part, right_part] : spaces) {
    if (!left_part && !right_part) continue;
    STASIS_ASSIGN(auto left, open_space(store, from, left_part));
    STASIS_ASSIGN(auto right, open_space(store, to, right_part));
    pairs.push_back({name, std::move(left), std::move(right)});
  }
  return pairs;
}

}  // namespace

Result<snapshot::VerifyReport> Host::verify(std::vector<SnapshotId> ids, const snapshot::VerifyOptions& options) const {
  if (ids.empty()) {
    STASIS_ASSIGN(ids, store_.list());
  }
  const snapshot::VerifiedLayers verified(store_);
  return snapshot::verify(store_, ids, options, &verified);
}

Result<snapshot::CollectStats> Host::collect_store(bool dry_run, std::chrono::seconds grace) const {
  const snapshot::CollectOptions options{dry_run, grace, unix_time_ns()};
  auto stats = store_.collect_with([this] { return sandbox_roots(sandboxes_dir()); }, options);
  if (stats || stats.error().code != Code::kAborted) return stats;
  return fail(Code::kAborted, "a snapshot is being written or a sandbox started: what is in use is not known",
              "try again in a moment");
}

Result<Host::Usage> Host::usage() const {
  STASIS_ASSIGN(const auto sandboxes, sandbox_maps(sandboxes_dir()));
  Usage usage;
  STASIS_ASSIGN(usage.store, snapshot::measure_usage(store_, sandboxes));
  // Busy, or a snapshot that cannot be read, whose layers are not known: then nothing would be removed.
  if (const auto planned = collect_store(true, {})) usage.reclaimable_bytes = planned->bytes_freed;
  return usage;
}

Result<snapshot::SnapshotDetail> Host::inspect(SnapshotId id, size_t cells) const {
  STASIS_ASSIGN(const auto sandboxes, sandbox_maps(sandboxes_dir()));
  return snapshot::inspect(store_, id, sandboxes, cells);
}

Result<std::vector<Host::Difference>> Host::diff(SnapshotId from, SnapshotId to,
                                                 const std::function<bool()>& go_on) const {
  STASIS_ASSIGN(auto pairs, open_pairs(store_, from, to));
  std::vector<Difference> differences;
  for (Pair& pair : pairs) {
    Difference difference = pair.difference();
    const bool disk = pair.name == std::string_view("disk");
    const bool both = pair.left && pair.right;
    if (!pair.left) {
      STASIS_ASSIGN(pair.left, empty_space(store_, pair.right->size()));
    }
    if (!pair.right) {
      STASIS_ASSIGN(pair.right, empty_space(store_, pair.left->size()));
    }
    STASIS_ASSIGN(difference.diff, snapshot::diff(*pair.left, *pair.right, go_on));
    if (disk && !both) {
      difference.files = fail(Code::kFailedPrecondition, "only one of the two has a disk");
    } else if (disk) {
      difference.files = difference.diff.runs == 0 ? files::Report{} : diff_files(from, to, go_on);
      if (!*difference.files && difference.files->error().code == Code::kCancelled)
        return fail(difference.files->error());
    }
    differences.push_back(std::move(difference));
  }
  return differences;
}

Result<files::Report> Host::diff_files(SnapshotId from, SnapshotId to, const std::function<bool()>& go_on) const {
  while (!comparing_files_.try_acquire_for(kTurnInterval)) {
    if (!go_on()) return fail(Code::kCancelled, "the comparison was ended");
  }
  auto report = files::ask({options_.files_program, store_.root(), from, to}, go_on);
  comparing_files_.release();
  return report;
}

}  // namespace stasis::agent
