// The `sandboxes` table. Every change of state is one compare-and-set; whoever loses sees false and must not write.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "server/database.h"
#include "server/records.h"

namespace stasis::server {

// From one state (and, if given, one epoch) to another, with columns that change along.
struct Transition {
  std::string id;
  State from = State::kPending;
  std::optional<int64_t> epoch = {};
  State to = State::kPending;
  std::string reason = {};
  std::vector<std::pair<const char*, Value>> columns = {};  // names are literals of the code
};

struct SandboxFilter {
  std::vector<State> states;  // empty: all but stopped
  std::string template_name;
  std::vector<std::pair<std::string, std::string>> metadata;  // all of them
  std::optional<std::pair<int64_t, std::string>> after;       // created_ms and id of the last one on the page before
  size_t limit = 100;
};

class SandboxTable {
 public:
  explicit SandboxTable(Database& database) : database_(database) {}

  Status insert(const SandboxRecord& record);
  Result<std::optional<SandboxRecord>> find(const std::string& id);
  // kNotFound if there is none.
  Result<SandboxRecord> get(const std::string& id);
  Result<std::vector<SandboxRecord>> all();
  // Newest first.
  Result<std::vector<SandboxRecord>> list(const SandboxFilter& filter);
  // True if this call made the change. kInternal for a change that the state machine does not have.
  Result<bool> change(const Transition& transition);
  // Without a change of state, and only while it is running.
  Status set_deadline(const std::string& id, uint32_t timeout_sec, int64_t deadline_ms);
  Status set_last_snapshot(const std::string& id, const Json& last_snapshot);
  // Removes rows that have been stopped since before `before_ms`.
  Status purge_stopped(int64_t before_ms);
  Result<std::map<State, int64_t>> count();

 private:
  Result<std::vector<SandboxRecord>> select(const std::string& rest, const std::vector<Value>& values);

  Database& database_;
};

}  // namespace stasis::server
