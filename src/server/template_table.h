// The `templates` table: names of images ("base") and of snapshots; and `orphan_snapshots`: ids of snapshots at the
// agent that nothing refers to (any more, or yet), so that a crash between the two never leaves one there for good.
#pragma once

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/result.h"
#include "server/database.h"
#include "server/records.h"

namespace stasis::server {

class TemplateTable {
 public:
  explicit TemplateTable(Database& database) : database_(database) {}

  // kAlreadyExists if the name is taken.
  Status insert(const TemplateRecord& record);
  // Inserts, or replaces the row of that name.
  Status put(const TemplateRecord& record);
  Result<std::optional<TemplateRecord>> find(const std::string& name);
  // Sorted by name; an empty type means all.
  Result<std::vector<TemplateRecord>> list(const std::string& type);
  Result<bool> remove(const std::string& name);

 private:
  Status write(const char* verb, const TemplateRecord& record);
  Database& database_;
};

class OrphanTable {
 public:
  explicit OrphanTable(Database& database) : database_(database) {}

  // Notes a snapshot that an operation of this process is about to make.
  Status make(const std::string& snapshot_id);
  // It was made and is referred to.
  Status forget(const std::string& snapshot_id);
  // One reference to it has gone, or it was not made after all. An empty id is ignored.
  Status release(const std::string& snapshot_id);
  // At start: nobody is making anything.
  Status release_all();
  // Those released that no template and no sandbox refers to: to be deleted at the agent, then forgotten.
  Result<std::vector<std::string>> unreferenced();

 private:
  Database& database_;
};

}  // namespace stasis::server
