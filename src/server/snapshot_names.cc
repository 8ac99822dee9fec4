#include "server/snapshot_names.h"

#include "base/uuid.h"

namespace stasis::server {

Result<TemplateRecord> find_snapshot(Tables& tables, const std::string& name) {
  STASIS_ASSIGN(std::optional<TemplateRecord> record, tables.templates.find(name));
  if (record) return std::move(*record);
  return fail(Code::kNotFound, "there is no snapshot '" + name + "'",
              "GET /v1/snapshots (stasis snapshot ls) lists those there are");
}

Result<TemplateRecord> find_snapshot(Store& store, const std::string& name) {
  return store.read([&](Tables& tables) { return find_snapshot(tables, name); });
}

Result<std::string> snapshot_id_of(Store& store, const std::string& name) {
  auto record = find_snapshot(store, name);
  if (record) return record->snapshot_id;
  if (record.error().code == Code::kNotFound && Uuid::parse(name)) return name;
  return fail(std::move(record).error());
}

Result<std::map<std::string, Referrers>> referrers(Store& store) {
  std::map<std::string, Referrers> found;
  STASIS_TRY(store.read([&](Tables& tables) -> Status {
    STASIS_ASSIGN(const auto templates, tables.templates.list(""));
    for (const TemplateRecord& record : templates) found[record.snapshot_id].names.push_back(record.name);
    STASIS_ASSIGN(const auto sandboxes, tables.sandboxes.all());
    for (const SandboxRecord& record : sandboxes) {
      if (record.state != State::kStopped) found[record.snapshot_id].sandboxes.push_back(record.id);
    }
    return {};
  }));
  found.erase("");
  return found;
}

Json reference_json(const std::string& snapshot_id, const std::map<std::string, Referrers>& referrers) {
  const auto found = referrers.find(snapshot_id);
  const Referrers known = found == referrers.end() ? Referrers{} : found->second;
  return {{"snapshot_id", snapshot_id}, {"names", known.names}, {"sandboxes", known.sandboxes}};
}

}  // namespace stasis::server
