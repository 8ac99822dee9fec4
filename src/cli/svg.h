// Pictures, as plain SVG: an address space coloured by the generation its bytes come from, and a tree of snapshots.
// Text that came from outside is escaped.
#pragma once

#include <string>
#include <vector>

#include "cli/client.h"
#include "cli/snapshot_tree.h"

namespace stasis::cli {

// Of an answer of GET /v1/snapshots/{name}/stats: each space as a grid, left to right and down, with its layers.
std::string spaces_svg(const Json& stats, const std::string& title);
std::string tree_svg(const std::vector<TreeLine>& lines);

// Writes a file, whole or not at all.
Status write_svg(const std::string& path, const std::string& svg);

}  // namespace stasis::cli
