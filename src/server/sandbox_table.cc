#include "server/sandbox_table.h"

#include "base/clock.h"

namespace stasis::server {
namespace {

const char* const kColumns =
    "id, template, base_snapshot_id, state, reason, epoch, vcpus, memory_mb, disk_mb, timeout_sec, deadline_ms, "
    "metadata, "
    "env, access_token, created_ms, updated_ms, started_ms, snapshot_id, pending_snapshot_id, vmm, accelerator, "
    "address, "
    "times, restore, last_snapshot";

Json json_of(const std::string& text) {
  Json value = Json::parse(text, nullptr, false);
  return value.is_discarded() ? Json() : value;
}

SandboxRecord record_of(const Row& row) {
  int column = 0;
  const auto text = [&] { return row.text(column++); };
  const auto integer = [&] { return row.integer(column++); };
  const auto small = [&] { return static_cast<uint32_t>(row.integer(column++)); };
  SandboxRecord record;
  record.id = text();
  record.template_name = text();
  record.base_snapshot_id = text();
  record.state = state_from_name(text()).value_or(State::kError);
  record.reason = text();
  record.epoch = integer();
  record.vcpus = small();
  record.memory_mb = small();
  record.disk_mb = small();
  record.timeout_sec = small();
  record.deadline_ms = integer();
  record.metadata = json_of(text());
  record.env = json_of(text());
  record.access_token = text();
  record.created_ms = integer();
  record.updated_ms = integer();
  record.started_ms = integer();
  record.snapshot_id = text();
  record.pending_snapshot_id = text();
  record.vmm = text();
  record.accelerator = text();
  record.address = text();
  record.times = json_of(text());
  record.restore = json_of(text());
  record.last_snapshot = json_of(text());
  return record;
}

std::vector<Value> values_of(const SandboxRecord& record) {
  return {record.id,
          record.template_name,
          record.base_snapshot_id,
          std::string(state_name(record.state)),
          record.reason,
          record.epoch,
          int64_t{record.vcpus},
          int64_t{record.memory_mb},
          int64_t{record.disk_mb},
          int64_t{record.timeout_sec},
          record.deadline_ms,
          record.metadata.dump(),
          record.env.dump(),
          record.access_token,
          record.created_ms,
          record.updated_ms,
          record.started_ms,
          record.snapshot_id,
          record.pending_snapshot_id,
          record.vmm,
          record.accelerator,
          record.address,
          record.times.dump(),
          record.restore.dump(),
          record.last_snapshot.dump()};
}

std::string placeholders(size_t count) {
  std::string text;
  for (size_t i = 0; i < count; ++i) text += i == 0 ? "?" : ", ?";
  return text;
}

}  // namespace

Status SandboxTable::insert(const SandboxRecord& record) {
  const std::vector<Value> values = values_of(record);
  STASIS_TRY(database_.run(
      "INSERT INTO sandboxes (" + std::string(kColumns) + ") VALUES (" + placeholders(values.size()) + ")", values));
  return {};
}

Result<std::vector<SandboxRecord>> SandboxTable::select(const std::string& rest, const std::vector<Value>& values) {
  std::vector<SandboxRecord> records;
  STASIS_TRY(database_.query("SELECT " + std::string(kColumns) + " FROM sandboxes " + rest, values,
                             [&](const Row& row) { records.push_back(record_of(row)); }));
  return records;
}

Result<std::optional<SandboxRecord>> SandboxTable::find(const std::string& id) {
  STASIS_ASSIGN(std::vector<SandboxRecord> found, select("WHERE id = ?", {id}));
  if (found.empty()) return std::nullopt;
  return std::move(found.front());
}

Result<SandboxRecord> SandboxTable::get(const std::string& id) {
  STASIS_ASSIGN(std::optional<SandboxRecord> found, find(id));
  if (!found) {
    return fail(Code::kNotFound, "there is no sandbox '" + id + "'",
                "GET /v1/sandboxes (stasis ls) lists those there are");
  }
  return std::move(*found);
}

Result<std::vector<SandboxRecord>> SandboxTable::all() { return select("ORDER BY created_ms, id", {}); }

Result<std::vector<SandboxRecord>> SandboxTable::list(const SandboxFilter& filter) {
  std::string where = "WHERE ";
  std::vector<Value> values;
  if (filter.states.empty()) {
    where += "state != 'stopped'";
  } else {
    where += "state IN (" + placeholders(filter.states.size()) + ")";
    for (const State state : filter.states) values.emplace_back(std::string(state_name(state)));
  }
  if (!filter.template_name.empty()) {
    where += " AND template = ?";
    values.emplace_back(filter.template_name);
  }
  for (const auto& [key, value] : filter.metadata) {
    where += " AND EXISTS (SELECT 1 FROM json_each(sandboxes.metadata) AS pair WHERE pair.key = ? AND pair.value = ?)";
    values.emplace_back(key);
    values.emplace_back(value);
  }
  if (filter.after) {
    where += " AND (created_ms, id) < (?, ?)";
    values.emplace_back(filter.after->first);
    values.emplace_back(filter.after->second);
  }
  values.emplace_back(static_cast<int64_t>(filter.limit));
  return select(where + " ORDER BY created_ms DESC, id DESC LIMIT ?", values);
}

Result<bool> SandboxTable::change(const Transition& transition) {
  if (!may_change(transition.from, transition.to)) {
    return fail(Code::kInternal, "a sandbox does not go from " + std::string(state_name(transition.from)) + " to " +
                                     std::string(state_name(transition.to)));
  }
  std::string sql = "UPDATE sandboxes SET state = ?, reason = ?, updated_ms = ?, epoch = epoch + 1";
  std::vector<Value> values = {std::string(state_name(transition.to)), transition.reason, unix_time_ms()};
  if (transition.to == State::kRunning) {
    sql += ", started_ms = CASE started_ms WHEN 0 THEN ? ELSE started_ms END";
    values.emplace_back(unix_time_ms());
  }
  for (const auto& [column, value] : transition.columns) {
    sql += ", " + std::string(column) + " = ?";
    values.push_back(value);
  }
  sql += " WHERE id = ? AND state = ?";
  values.emplace_back(transition.id);
  values.emplace_back(std::string(state_name(transition.from)));
  if (transition.epoch) {
    sql += " AND epoch = ?";
    values.emplace_back(*transition.epoch);
  }
  STASIS_ASSIGN(const int64_t changed, database_.run(sql, values));
  return changed == 1;
}

Status SandboxTable::set_deadline(const std::string& id, uint32_t timeout_sec, int64_t deadline_ms) {
  STASIS_TRY(database_.run("UPDATE sandboxes SET timeout_sec = ?, deadline_ms = ? WHERE id = ? AND state = 'running'",
                           {int64_t{timeout_sec}, deadline_ms, id}));
  return {};
}

Status SandboxTable::set_last_snapshot(const std::string& id, const Json& last_snapshot) {
  STASIS_TRY(database_.run("UPDATE sandboxes SET last_snapshot = ? WHERE id = ?", {last_snapshot.dump(), id}));
  return {};
}

Status SandboxTable::purge_stopped(int64_t before_ms) {
  STASIS_TRY(database_.run("DELETE FROM sandboxes WHERE state = 'stopped' AND updated_ms < ?", {before_ms}));
  return {};
}

Result<std::map<State, int64_t>> SandboxTable::count() {
  std::map<State, int64_t> counts;
  STASIS_TRY(database_.query("SELECT state, count(*) FROM sandboxes GROUP BY state", {}, [&](const Row& row) {
    if (const auto state = state_from_name(row.text(0))) counts[*state] = row.integer(1);
  }));
  return counts;
}

}  // namespace stasis::server
