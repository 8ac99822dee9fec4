// Between the names that people use and the ids that the agent knows.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "server/store.h"

namespace stasis::server {

// The image or snapshot of this name; kNotFound.
Result<TemplateRecord> find_snapshot(Tables& tables, const std::string& name);
Result<TemplateRecord> find_snapshot(Store& store, const std::string& name);

// The id behind the name of an image or a snapshot; a snapshot's id stands for itself, whether anything is named after
// it or not. kNotFound for anything else.
Result<std::string> snapshot_id_of(Store& store, const std::string& name);

// Who refers to a snapshot: names of templates, ids of the sandboxes that are paused in it.
struct Referrers {
  std::vector<std::string> names;
  std::vector<std::string> sandboxes;
};
Result<std::map<std::string, Referrers>> referrers(Store& store);

// {snapshot_id, names, sandboxes}
Json reference_json(const std::string& snapshot_id, const std::map<std::string, Referrers>& referrers);

}  // namespace stasis::server
