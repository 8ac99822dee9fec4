#include "server/template_table.h"

namespace stasis::server {
namespace {

const char* const kColumns =
    "name, type, vcpus, memory_mb, disk_mb, size_bytes, snapshot_id, created_ms, owner, sandbox_id, source_template, "
    "capture";

TemplateRecord record_of(const Row& row) {
  TemplateRecord record;
  record.name = row.text(0);
  record.type = row.text(1);
  record.vcpus = static_cast<uint32_t>(row.integer(2));
  record.memory_mb = static_cast<uint32_t>(row.integer(3));
  record.disk_mb = static_cast<uint32_t>(row.integer(4));
  record.size_bytes = static_cast<uint64_t>(row.integer(5));
  record.snapshot_id = row.text(6);
  record.created_ms = row.integer(7);
  record.owner = row.text(8);
  record.sandbox_id = row.text(9);
  record.source_template = row.text(10);
  record.capture = Json::parse(row.text(11), nullptr, false);
  if (record.capture.is_discarded()) record.capture = Json();
  return record;
}

}  // namespace

Status TemplateTable::write(const char* verb, const TemplateRecord& record) {
  STASIS_TRY(database_.run(
      std::string(verb) + " INTO templates (" + kColumns + ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
      {record.name, record.type, int64_t{record.vcpus}, int64_t{record.memory_mb}, int64_t{record.disk_mb},
       static_cast<int64_t>(record.size_bytes), record.snapshot_id, record.created_ms, record.owner, record.sandbox_id,
       record.source_template, record.capture.dump()}));
  return {};
}

Status TemplateTable::insert(const TemplateRecord& record) { return write("INSERT", record); }

Status TemplateTable::put(const TemplateRecord& record) { return write("INSERT OR REPLACE", record); }

Result<std::optional<TemplateRecord>> TemplateTable::find(const std::string& name) {
  std::optional<TemplateRecord> found;
  STASIS_TRY(database_.query("SELECT " + std::string(kColumns) + " FROM templates WHERE name = ?", {name},
                             [&](const Row& row) { found = record_of(row); }));
  return found;
}

Result<std::vector<TemplateRecord>> TemplateTable::list(const std::string& type) {
  std::vector<TemplateRecord> records;
  STASIS_TRY(
      database_.query("SELECT " + std::string(kColumns) + " FROM templates WHERE ?1 = '' OR type = ?1 ORDER BY name",
                      {type}, [&](const Row& row) { records.push_back(record_of(row)); }));
  return records;
}

Result<bool> TemplateTable::remove(const std::string& name) {
  STASIS_ASSIGN(const int64_t removed, database_.run("DELETE FROM templates WHERE name = ?", {name}));
  return removed == 1;
}

Status OrphanTable::make(const std::string& snapshot_id) {
  STASIS_TRY(database_.run("INSERT INTO orphan_snapshots (snapshot_id, making) VALUES (?, 1)", {snapshot_id}));
  return {};
}

Status OrphanTable::forget(const std::string& snapshot_id) {
  STASIS_TRY(database_.run("DELETE FROM orphan_snapshots WHERE snapshot_id = ?", {snapshot_id}));
  return {};
}

Status OrphanTable::release(const std::string& snapshot_id) {
  if (snapshot_id.empty()) return {};
  STASIS_TRY(
      database_.run("INSERT OR REPLACE INTO orphan_snapshots (snapshot_id, making) VALUES (?, 0)", {snapshot_id}));
  return {};
}

Status OrphanTable::release_all() {
  STASIS_TRY(database_.run("UPDATE orphan_snapshots SET making = 0"));
  return {};
}

Result<std::vector<std::string>> OrphanTable::unreferenced() {
  STASIS_TRY(database_.run(
      "DELETE FROM orphan_snapshots WHERE making = 0 AND snapshot_id IN (SELECT snapshot_id FROM templates UNION "
      "SELECT snapshot_id FROM sandboxes UNION SELECT pending_snapshot_id FROM sandboxes)"));
  std::vector<std::string> ids;
  STASIS_TRY(database_.query("SELECT snapshot_id FROM orphan_snapshots WHERE making = 0 ORDER BY snapshot_id", {},
                             [&](const Row& row) { ids.push_back(row.text(0)); }));
  return ids;
}

}  // namespace stasis::server
