#include "server/store.h"

#include <array>

namespace stasis::server {
namespace {

// What leads from version n to n + 1. Never edit one that was released: add the next.
constexpr std::array<const char*, 2> kMigrations = {R"sql(
CREATE TABLE sandboxes (
  id TEXT PRIMARY KEY,
  template TEXT NOT NULL,
  base_snapshot_id TEXT NOT NULL,
  state TEXT NOT NULL,
  reason TEXT NOT NULL,
  epoch INTEGER NOT NULL,
  vcpus INTEGER NOT NULL,
  memory_mb INTEGER NOT NULL,
  disk_mb INTEGER NOT NULL,
  timeout_sec INTEGER NOT NULL,
  deadline_ms INTEGER NOT NULL,
  metadata TEXT NOT NULL,
  env TEXT NOT NULL,
  access_token TEXT NOT NULL,
  created_ms INTEGER NOT NULL,
  updated_ms INTEGER NOT NULL,
  started_ms INTEGER NOT NULL,
  snapshot_id TEXT NOT NULL,
  pending_snapshot_id TEXT NOT NULL,
  vmm TEXT NOT NULL,
  accelerator TEXT NOT NULL,
  address TEXT NOT NULL,
  times TEXT NOT NULL,
  restore TEXT NOT NULL,
  last_snapshot TEXT NOT NULL
) STRICT;
CREATE INDEX sandboxes_by_age ON sandboxes (created_ms, id);
CREATE TABLE templates (
  name TEXT PRIMARY KEY,
  type TEXT NOT NULL,
  vcpus INTEGER NOT NULL,
  memory_mb INTEGER NOT NULL,
  disk_mb INTEGER NOT NULL,
  size_bytes INTEGER NOT NULL,
  snapshot_id TEXT NOT NULL,
  created_ms INTEGER NOT NULL,
  owner TEXT NOT NULL,
  sandbox_id TEXT NOT NULL,
  capture TEXT NOT NULL
) STRICT;
CREATE TABLE orphan_snapshots (
  snapshot_id TEXT PRIMARY KEY,
  making INTEGER NOT NULL
) STRICT;
CREATE TABLE idempotency_keys (
  key TEXT PRIMARY KEY,
  request TEXT NOT NULL,
  sandbox_id TEXT NOT NULL REFERENCES sandboxes (id) ON DELETE CASCADE
) STRICT;
CREATE INDEX idempotency_by_sandbox ON idempotency_keys (sandbox_id);
)sql",
                                                    R"sql(
CREATE TABLE retention (
  scope TEXT NOT NULL,
  target TEXT NOT NULL,
  keep_last INTEGER NOT NULL,
  max_age_sec INTEGER NOT NULL,
  PRIMARY KEY (scope, target)
) STRICT;
ALTER TABLE templates ADD COLUMN source_template TEXT NOT NULL DEFAULT '';
UPDATE templates SET source_template =
  coalesce((SELECT template FROM sandboxes WHERE sandboxes.id = templates.sandbox_id), '');
)sql"};

}  // namespace

Result<std::unique_ptr<Store>> Store::open(const Path& path) {
  STASIS_ASSIGN(Database database, Database::open(path, kMigrations));
  return std::unique_ptr<Store>(new Store(std::move(database)));
}

}  // namespace stasis::server
