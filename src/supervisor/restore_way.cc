#include "supervisor/restore_way.h"

#include "snapshot/verified.h"

namespace stasis::supervisor {
namespace {

using pager::MappedPlan;

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

}  // namespace

Result<RestoreWay> choose_restore_way(const SandboxConfig& config, const snapshot::Store& store,
                                      std::shared_ptr<const snapshot::AddressSpace> memory, bool maps_one_file) {
  STASIS_TRY(check_restore(config.restore, config.load_mib_per_s));
  if (config.restore == kRestoreUffd) return RestoreWay{{}, {}, "asked for"};
  if (config.load_mib_per_s > 0) return RestoreWay{{}, {}, "all of it is to be loaded in the background"};
  auto plan = plan_of(store, std::move(memory));
  if (!plan) return fail(std::move(plan).error());
  auto way = all_mapped(std::move(*plan), store, maps_one_file);
  if (!way && config.restore.empty()) return RestoreWay{{}, {}, std::move(way).error().message};
  if (!way) return fail(std::move(way).error().with_context("this memory cannot be mapped"));
  if (!config.restore.empty()) way->reason = "asked for";
  return way;
}

}  // namespace stasis::supervisor
