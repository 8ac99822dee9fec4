#include "server/retention_table.h"

namespace stasis::server {

Status RetentionTable::put(const RetentionPolicy& policy) {
  STASIS_TRY(
      database_.run("INSERT OR REPLACE INTO retention (scope, target, keep_last, max_age_sec) VALUES (?, ?, ?, ?)",
                    {policy.scope, policy.target, int64_t{policy.keep_last}, int64_t{policy.max_age_sec}}));
  return {};
}

Result<std::vector<RetentionPolicy>> RetentionTable::list() {
  std::vector<RetentionPolicy> policies;
  STASIS_TRY(database_.query(
      "SELECT scope, target, keep_last, max_age_sec FROM retention ORDER BY scope, target", {}, [&](const Row& row) {
        policies.push_back(
            {row.text(0), row.text(1), static_cast<uint32_t>(row.integer(2)), static_cast<uint32_t>(row.integer(3))});
      }));
  return policies;
}

Result<bool> RetentionTable::remove(const std::string& scope, const std::string& target) {
  STASIS_ASSIGN(const int64_t removed,
                database_.run("DELETE FROM retention WHERE scope = ? AND target = ?", {scope, target}));
  return removed == 1;
}

Status RetentionTable::purge() {
  STASIS_TRY(
      database_.run("DELETE FROM retention WHERE scope = 'sandbox' AND target NOT IN (SELECT id FROM sandboxes UNION "
                    "SELECT sandbox_id FROM templates)"));
  return {};
}

}  // namespace stasis::server
