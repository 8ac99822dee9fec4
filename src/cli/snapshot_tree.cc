#include "cli/snapshot_tree.h"

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

#include "cli/session.h"
#include "cli/table.h"

namespace stasis::cli {
namespace {

struct Node {
  std::string parent;
  std::string created;
  std::string label;
  std::string note;
  bool exists = true;
};

using Nodes = std::map<std::string, Node>;  // by id

std::string label_of(const Json& holder) {
  std::string label;
  for (const char* key : {"names", "sandboxes"}) {
    const auto found = holder.find(key);
    if (found == holder.end() || !found->is_array()) continue;
    for (const Json& one : *found) {
      if (!one.is_string()) continue;
      label += (label.empty() ? "" : ", ") + std::string(key == std::string_view("names") ? "" : "paused ");
      label += one.get<std::string>();
    }
  }
  return label.empty() ? text_field(holder, "id") : label;
}

Nodes nodes_of(const Json& usage) {
  Nodes nodes;
  const auto holders = usage.find("holders");
  if (holders == usage.end() || !holders->is_array()) return nodes;
  for (const Json& holder : *holders) {
    const std::string kind = text_field(holder, "kind");
    if (kind == "sandbox") continue;
    std::string note =
        kind + ", own " + size_field(holder, "own_bytes") + ", shared " + size_field(holder, "shared_bytes");
    if (!text_field(holder, "damage").empty()) note += ", DAMAGED";
    nodes[text_field(holder, "id")] = {text_field(holder, "parent_id"), text_field(holder, "created_at"),
                                       label_of(holder), note, true};
  }
  const Nodes known = nodes;
  for (const auto& [id, node] : known) {
    if (!node.parent.empty() && !known.contains(node.parent)) {
      nodes[node.parent] = {"", node.created, node.parent, "deleted", false};
    }
  }
  return nodes;
}

class Walk {
 public:
  explicit Walk(const Nodes& nodes) : nodes_(nodes) {
    for (const auto& [id, node] : nodes) children_[node.parent].push_back(id);
    for (auto& [parent, ids] : children_) {
      std::sort(ids.begin(), ids.end(), [&](const std::string& a, const std::string& b) {
        return std::tie(nodes.at(a).created, a) < std::tie(nodes.at(b).created, b);
      });
    }
  }

  std::vector<TreeLine> run() {
    visit_all("");
    for (const auto& [id, node] : nodes_) {
      if (!seen_.contains(id)) visit(id);  // parents in a circle: a damaged store
    }
    return std::move(lines_);
  }

 private:
  struct Pending {
    std::string id;
    size_t depth;
    std::string stem;  // what stands before its children
    bool last;
  };

  void visit_all(const std::string& parent) {
    for (const std::string& id : children_[parent]) visit(id);
  }

  // Without recursion: a line of parents may be long.
  void visit(const std::string& root) {
    std::vector<Pending> pending{{root, 0, "", true}};
    while (!pending.empty()) {
      const Pending here = std::move(pending.back());
      pending.pop_back();
      if (!seen_.insert(here.id).second) continue;
      const Node& node = nodes_.at(here.id);
      const std::string branch = here.depth == 0 ? "" : here.stem + (here.last ? "└─ " : "├─ ");
      lines_.push_back({here.depth, branch, node.label, node.note, node.exists});
      const std::string stem = here.depth == 0 ? "" : here.stem + (here.last ? "   " : "│  ");
      const auto& children = children_[here.id];
      for (size_t i = children.size(); i-- > 0;) {
        pending.push_back({children[i], here.depth + 1, stem, i + 1 == children.size()});
      }
    }
  }

  const Nodes& nodes_;
  std::map<std::string, std::vector<std::string>> children_;
  std::set<std::string> seen_;
  std::vector<TreeLine> lines_;
};

}  // namespace

std::vector<TreeLine> tree_lines(const Json& usage) {
  const Nodes nodes = nodes_of(usage);
  return Walk(nodes).run();
}

}  // namespace stasis::cli
