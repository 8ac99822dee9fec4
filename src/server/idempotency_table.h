// The `idempotency_keys` table: which sandbox a client's key stands for, and for which request. A key lives as long as
// the sandbox's row.
#pragma once

#include <optional>
#include <string>

#include "base/result.h"
#include "server/database.h"

namespace stasis::server {

struct IdempotencyRecord {
  std::string key;
  std::string request;  // canonical JSON text
  std::string sandbox_id;
};

class IdempotencyTable {
 public:
  explicit IdempotencyTable(Database& database) : database_(database) {}

  Result<std::optional<IdempotencyRecord>> find(const std::string& key);
  Status put(const IdempotencyRecord& record);

 private:
  Database& database_;
};

}  // namespace stasis::server
