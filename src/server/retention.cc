#include "server/retention.h"

#include <algorithm>
#include <tuple>

namespace stasis::server {
namespace {

bool covers(const RetentionPolicy& policy, const TemplateRecord& snapshot) {
  return (policy.scope == "sandbox" ? snapshot.sandbox_id : snapshot.source_template) == policy.target;
}

bool newer(const TemplateRecord* a, const TemplateRecord* b) {
  return std::tie(a->created_ms, a->name) > std::tie(b->created_ms, b->name);
}

std::set<std::string> in_use(const std::vector<SandboxRecord>& sandboxes) {
  std::set<std::string> ids;
  for (const SandboxRecord& record : sandboxes) {
    if (record.state != State::kStopped) ids.insert({record.base_snapshot_id, record.snapshot_id});
  }
  return ids;
}

}  // namespace

std::vector<std::string> not_retained(const std::vector<RetentionPolicy>& policies,
                                      const std::vector<TemplateRecord>& snapshots,
                                      const std::set<std::string>& snapshot_ids_in_use, int64_t now_ms) {
  std::set<std::string> names;
  for (const RetentionPolicy& policy : policies) {
    std::vector<const TemplateRecord*> group;
    for (const TemplateRecord& snapshot : snapshots) {
      if (covers(policy, snapshot)) group.push_back(&snapshot);
    }
    std::sort(group.begin(), group.end(), newer);
    for (size_t i = 0; i < group.size(); ++i) {
      const bool too_many = policy.keep_last > 0 && i >= policy.keep_last;
      const bool too_old = policy.max_age_sec > 0 && now_ms - group[i]->created_ms > int64_t{policy.max_age_sec} * 1000;
      if ((too_many || too_old) && !snapshot_ids_in_use.contains(group[i]->snapshot_id)) names.insert(group[i]->name);
    }
  }
  return {names.begin(), names.end()};
}

Result<std::vector<std::string>> apply_retention(Store& store, int64_t now_ms) {
  STASIS_ASSIGN(const auto any, store.read([](Tables& tables) { return tables.retention.list(); }));
  if (any.empty()) return std::vector<std::string>();
  return store.write([&](Tables& tables) -> Result<std::vector<std::string>> {
    STASIS_TRY(tables.retention.purge());
    STASIS_ASSIGN(const auto policies, tables.retention.list());
    STASIS_ASSIGN(const auto snapshots, tables.templates.list("snapshot"));
    STASIS_ASSIGN(const auto sandboxes, tables.sandboxes.all());
    std::vector<std::string> names = not_retained(policies, snapshots, in_use(sandboxes), now_ms);
    for (const TemplateRecord& snapshot : snapshots) {
      if (!std::binary_search(names.begin(), names.end(), snapshot.name)) continue;
      STASIS_TRY(tables.templates.remove(snapshot.name));
      STASIS_TRY(tables.orphans.release(snapshot.snapshot_id));
    }
    return names;
  });
}

}  // namespace stasis::server
