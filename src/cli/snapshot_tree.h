// The snapshots of a host as a tree: each below the one it was made from.
#pragma once

#include <string>
#include <vector>

#include "cli/client.h"

namespace stasis::cli {

struct TreeLine {
  size_t depth = 0;
  std::string branch;  // "│  ├─ ": what a terminal shows before the label
  std::string label;   // its names, or its id
  std::string note;    // "snapshot, own 1.2 MiB, shared 30 MiB"
  bool exists = true;  // false: a parent that was deleted
};

// Of an answer of GET /v1/store/usage, parents before children, siblings by age.
std::vector<TreeLine> tree_lines(const Json& usage);

}  // namespace stasis::cli
