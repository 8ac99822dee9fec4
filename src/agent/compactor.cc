#include "agent/compactor.h"

#include "base/background.h"
#include "base/clock.h"
#include "base/host_probe.h"
#include "base/log.h"
#include "snapshot/holders.h"
#include "snapshot/verified.h"

namespace stasis::agent {
namespace {

using snapshot::CompactPlan;
using snapshot::CompactResult;
using snapshot::SnapshotId;

// Counting must not grow without end; what is started often is counted again soon.
constexpr size_t kMaxCounted = 10'000;

}  // namespace

Compactor::Compactor(const snapshot::Store& store, snapshot::Store::RootsFunction roots,
                     std::function<void()> compacted, CompactorOptions options, Event stop)
    : store_(store),
      roots_(std::move(roots)),
      compacted_(std::move(compacted)),
      options_(options),
      stop_(std::move(stop)) {}

Result<std::unique_ptr<Compactor>> Compactor::start(const snapshot::Store& store, snapshot::Store::RootsFunction roots,
                                                    std::function<void()> compacted, CompactorOptions options) {
  STASIS_ASSIGN(Event stop, Event::create());
  std::unique_ptr<Compactor> compactor(
      new Compactor(store, std::move(roots), std::move(compacted), options, std::move(stop)));
  compactor->thread_ = std::thread([raw = compactor.get()] { raw->run(); });
  return compactor;
}

Compactor::~Compactor() {
  stop();
  thread_.join();
}

void Compactor::count_start(SnapshotId id) {
  const std::lock_guard lock(mutex_);
  if (starts_.size() >= kMaxCounted && !starts_.contains(id)) starts_.clear();
  ++starts_[id];
}

Result<std::vector<CompactPlan>> Compactor::plan() {
  STASIS_ASSIGN(const auto roots, roots_());
  const auto starts = [this](SnapshotId id) -> uint64_t {
    const std::lock_guard lock(mutex_);
    const auto found = starts_.find(id);
    return found == starts_.end() ? 0 : found->second;
  };
  STASIS_ASSIGN(const auto uses, snapshot::survey(store_, roots, starts));
  return snapshot::plan_compactions(uses, unix_time_ms());
}

Result<CompactResult> Compactor::compact(const CompactPlan& plan, RateLimit limit) {
  return run_one(plan.id, {plan.memory, plan.disk, limit});
}

Result<CompactResult> Compactor::pack(SnapshotId id, int cancel_fd) {
  STASIS_ASSIGN(auto roots, roots_());
  const snapshot::SandboxMaps sandboxes{"", std::move(roots)};
  STASIS_ASSIGN(const auto holders, snapshot::find_holders(store_, {&sandboxes, 1}));
  snapshot::CompactOptions options;
  options.form = snapshot::LayerForm::kPacked;
  options.limit = RateLimit(0, cancel_fd);
  for (const snapshot::Holder& holder : holders) {
    if (holder.id != id.text()) options.keep.insert(holder.layers.begin(), holder.layers.end());
  }
  return run_one(id, std::move(options));
}

Result<CompactResult> Compactor::run_one(SnapshotId id, snapshot::CompactOptions options) {
  STASIS_ASSIGN(const CompactResult result, snapshot::compact(store_, id, std::move(options)));
  if (result.spaces == 0) return result;
  for (const snapshot::LayerId layer : result.written) snapshot::VerifiedLayers(store_).note_written(layer);
  spdlog::info("snapshot {}: made {} layers of {} ({} MiB, {} MiB stored before, {} MiB now)", id.text(), result.spaces,
               result.layers_before, result.live_bytes >> 20, result.stored_before >> 20, result.stored_after >> 20);
  compacted_();
  return result;
}

Result<CompactResult> Compactor::compact(SnapshotId id, int cancel_fd) {
  return compact(CompactPlan{id, true, true, 0, 0}, RateLimit(0, cancel_fd));
}

void Compactor::run() {
  become_background_thread();
  for (;;) {
    const auto stopped = wait_readable(stop_.fd(), Deadline::after(options_.look_again));
    if (!stopped || *stopped) return;
    while (compact_next()) {
    }
  }
}

// One snapshot at a time: each changes what the others share. False when there is nothing left to do now.
bool Compactor::compact_next() {
  const auto plans = plan();
  if (!plans) return false;  // a collection tells the same error
  for (const CompactPlan& plan : *plans) {
    if (failed_.contains(plan.id) || !has_room(plan)) continue;
    const auto result = compact(plan, RateLimit(options_.bytes_per_second, stop_.fd()));
    if (result && result->spaces > 0) return true;
    if (!result && result.error().code == Code::kCancelled) return false;
    if (!result && (result.error().code == Code::kAborted || result.error().code == Code::kNotFound)) continue;
    if (!result) spdlog::warn("{}", result.error().message);
    failed_.insert(plan.id);
  }
  return false;
}

bool Compactor::has_room(const CompactPlan& plan) const {
  const auto free = free_disk_space(store_.root());
  return free && *free >= plan.live_bytes && *free - plan.live_bytes >= options_.free_afterwards;
}

}  // namespace stasis::agent
