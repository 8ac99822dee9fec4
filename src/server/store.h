// The control plane's database: its tables behind one lock, and transactions. Thread-safe. A transaction's body must
// not call the agent or anything else that waits.
#pragma once

#include <memory>
#include <mutex>
#include <utility>

#include "server/database.h"
#include "server/idempotency_table.h"
#include "server/retention_table.h"
#include "server/sandbox_table.h"
#include "server/template_table.h"

namespace stasis::server {

struct Tables {
  explicit Tables(Database& database)
      : sandboxes(database), templates(database), orphans(database), idempotency(database), retention(database) {}
  SandboxTable sandboxes;
  TemplateTable templates;
  OrphanTable orphans;
  IdempotencyTable idempotency;
  RetentionTable retention;
};

class Store {
 public:
  // STATE/server.db; see Database::open.
  static Result<std::unique_ptr<Store>> open(const Path& path);

  // One transaction: kept if `body(Tables&)` returns a value, undone if it returns an error.
  template <typename Body>
  auto write(Body&& body) -> decltype(body(std::declval<Tables&>())) {
    const std::lock_guard lock(mutex_);
    STASIS_TRY(database_.begin());
    auto result = body(tables_);
    if (!result) {
      database_.rollback();
      return result;
    }
    if (Status committed = database_.commit(); !committed) {
      database_.rollback();
      return fail(std::move(committed).error());
    }
    return result;
  }

  // Reads only; without a transaction, so one statement sees one state of the table.
  template <typename Body>
  auto read(Body&& body) -> decltype(body(std::declval<Tables&>())) {
    const std::lock_guard lock(mutex_);
    return body(tables_);
  }

 private:
  explicit Store(Database database) : database_(std::move(database)) {}

  std::mutex mutex_;
  Database database_;
  Tables tables_{database_};
};

}  // namespace stasis::server
