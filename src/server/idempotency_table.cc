#include "server/idempotency_table.h"

namespace stasis::server {

Result<std::optional<IdempotencyRecord>> IdempotencyTable::find(const std::string& key) {
  std::optional<IdempotencyRecord> found;
  STASIS_TRY(database_.query("SELECT key, request, sandbox_id FROM idempotency_keys WHERE key = ?", {key},
                             [&](const Row& row) {
                               found = IdempotencyRecord{row.text(0), row.text(1), row.text(2)};
                             }));
  return found;
}

Status IdempotencyTable::put(const IdempotencyRecord& record) {
  STASIS_TRY(database_.run("INSERT OR REPLACE INTO idempotency_keys (key, request, sandbox_id) VALUES (?, ?, ?)",
                           {record.key, record.request, record.sandbox_id}));
  return {};
}

}  // namespace stasis::server
