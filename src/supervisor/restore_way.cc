#include "supervisor/restore_way.h"

#include "snapshot/verified.h"

namespace stasis::supervisor {
namespace {

Result<RestoreWay> plan_mapped(const snapshot::Store& store, std::shared_ptr<const snapshot::AddressSpace> memory,
                               bool maps_one_file) {
  const snapshot::VerifiedLayers verified(store);
  const auto is_whole = [&](snapshot::LayerId id) { return verified.holds(id); };
  STASIS_ASSIGN(const pager::MappingLimits limits, pager::mapping_limits());
  STASIS_ASSIGN(pager::MappedPlan plan, pager::plan_mapping(std::move(memory), is_whole, limits));
  RestoreWay way;
  if (maps_one_file) {
    STASIS_ASSIGN(way.file, pager::as_one_file(plan, store.fs(), store.layers_dir()));
  }
  way.reason = "all of its layers are raw and known to be whole";
  way.mapped = std::make_shared<const pager::MappedPlan>(std::move(plan));
  return way;
}

}  // namespace

Result<RestoreWay> choose_restore_way(const SandboxConfig& config, const snapshot::Store& store,
                                      std::shared_ptr<const snapshot::AddressSpace> memory, bool maps_one_file) {
  STASIS_TRY(check_restore(config.restore, config.load_mib_per_s));
  const std::string& method = config.restore;
  if (method == kRestoreUffd) return RestoreWay{{}, {}, "asked for"};
  if (config.load_mib_per_s > 0) return RestoreWay{{}, {}, "all of it is to be loaded in the background"};
  auto way = plan_mapped(store, std::move(memory), maps_one_file);
  if (way) {
    if (!method.empty()) way->reason = "asked for";
    return way;
  }
  if (!method.empty()) return fail(std::move(way).error().with_context("this memory cannot be mapped"));
  return RestoreWay{{}, {}, std::move(way).error().message};
}

}  // namespace stasis::supervisor
