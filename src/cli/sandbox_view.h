// Sandboxes and snapshots as people read them.
#pragma once

#include <string>
#include <vector>

#include "cli/client.h"
#include "cli/table.h"

namespace stasis::cli {

Table sandbox_table();
void add_sandbox(Table& table, const Json& sandbox);
Table snapshot_table();
void add_snapshot(Table& table, const Json& snapshot);

// One line each, for a sandbox as an operation left it.
std::string created_line(const Json& sandbox);
std::string paused_line(const Json& sandbox);
std::string resumed_line(const Json& sandbox);
// The same for what a snapshot stored: "memory 1.2 MiB (generation 1), disk 64 KiB; the guest stood for 12 ms".
std::string capture_text(const Json& capture);

// "KEY=VALUE" pairs as an object of strings. kInvalidArgument for one without "=" or with an empty key.
Result<Json> pairs_object(const std::vector<std::string>& pairs, const std::string& option);

std::string sandbox_path(const std::string& id, const std::string& rest = "");

}  // namespace stasis::cli
