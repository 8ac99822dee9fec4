#include "supervisor/restore_way.h"

#include "snapshot/verified.h"

namespace stasis::supervisor {
namespace {

using pager::MappedPlan;

// Less would be two mechanisms for little: most of what the guest touches would fault all the same.
bool is_worth_it(const MappedPlan& plan) { return plan.mapped_bytes + plan.copied_bytes >= plan.served_bytes; }

std::string share_of(const MappedPlan& plan) {
  const uint64_t mapped = plan.mapped_bytes + plan.copied_bytes;
  return std::to_string(mapped >> 20) + " of " + std::to_string((mapped + plan.served_bytes) >> 20) + " MiB";
}

Result<MappedPlan> plan_of(const snapshot::Store& store, std::shared_ptr<const snapshot::AddressSpace> memory) {
  const snapshot::VerifiedLayers verified(store);
  const auto is_whole = [&](snapshot::LayerId id) { return verified.holds(id); };
  STASIS_ASSIGN(const pager::MappingLimits limits, pager::mapping_limits());
  return pager::plan_mapping(std::move(memory), is_whole, limits);
}

Result<RestoreWay> all_mapped(MappedPlan plan, const snapshot::Store& store, bool maps_one_file) {
  if (plan.is_served()) return fail(Error(*plan.not_mapped));
  RestoreWay way{{}, {}, "all of its layers are raw and known to be whole"};
  if (maps_one_file) {
    STASIS_ASSIGN(way.file, pager::as_one_file(plan, store.fs(), store.layers_dir()));
  }
  way.mapped = std::make_shared<const MappedPlan>(std::move(plan));
  return way;
}

RestoreWay partly_mapped(MappedPlan plan) {
  RestoreWay way{{}, {}, share_of(plan) + " are mapped, the rest comes by faults: " + plan.not_mapped->message};
  way.mapped = std::make_shared<const MappedPlan>(std::move(plan));
  return way;
}

RestoreWay best_of(MappedPlan plan, const snapshot::Store& store, bool maps_one_file) {
  if (!plan.is_served() || maps_one_file) {
    auto way = all_mapped(std::move(plan), store, maps_one_file);
    return way ? std::move(*way) : RestoreWay{{}, {}, std::move(way).error().message};
  }
  if (is_worth_it(plan)) return partly_mapped(std::move(plan));
  return {{}, {}, plan.not_mapped->message + "; only " + share_of(plan) + " could be mapped"};
}

}  // namespace

const char* RestoreWay::method() const {
  if (!mapped) return kRestoreUffd;
  return mapped->is_served() ? kRestorePartly : kRestoreMapped;
}

Result<RestoreWay> choose_restore_way(const SandboxConfig& config, const snapshot::Store& store,
                                      std::shared_ptr<const snapshot::AddressSpace> memory, bool maps_one_file) {
  STASIS_TRY(check_restore(config.restore, config.load_mib_per_s));
  if (config.restore == kRestoreUffd) return RestoreWay{{}, {}, "asked for"};
  if (config.load_mib_per_s > 0) return RestoreWay{{}, {}, "all of it is to be loaded in the background"};
  auto plan = plan_of(store, std::move(memory));
  if (config.restore.empty()) {
    if (!plan) return RestoreWay{{}, {}, std::move(plan).error().message};
    return best_of(std::move(*plan), store, maps_one_file);
  }
  if (!plan) return fail(std::move(plan).error());
  auto way = all_mapped(std::move(*plan), store, maps_one_file);
  if (!way) return fail(std::move(way).error().with_context("this memory cannot be mapped"));
  way->reason = "asked for";
  return way;
}

}  // namespace stasis::supervisor
