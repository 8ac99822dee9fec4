// The `retention` table: how many snapshots of one sandbox, or of all sandboxes made from one template, are kept, and
// for how long.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "server/database.h"

namespace stasis::server {

struct RetentionPolicy {
  std::string scope;         // "sandbox", "template"
  std::string target;        // the sandbox's id, the template's name
  uint32_t keep_last = 0;    // 0: however many
  uint32_t max_age_sec = 0;  // 0: however old
};

class RetentionTable {
 public:
  explicit RetentionTable(Database& database) : database_(database) {}

  // Inserts, or replaces the policy of this target.
  Status put(const RetentionPolicy& policy);
  // Sorted by scope and target.
  Result<std::vector<RetentionPolicy>> list();
  Result<bool> remove(const std::string& scope, const std::string& target);
  // Policies of sandboxes that are gone with all their snapshots.
  Status purge();

 private:
  Database& database_;
};

}  // namespace stasis::server
