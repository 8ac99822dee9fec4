// snapshot inspect, tree, diff.
#include <fmt/format.h>

#include <memory>

#include "cli/command_line.h"
#include "cli/progress.h"
#include "cli/snapshot_tree.h"
#include "cli/svg.h"
#include "cli/table.h"

namespace stasis::cli {
namespace {

struct InspectOptions {
  std::string name;
  std::string other;
  std::string svg;
};

bool flag_field(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_boolean() && found->get<bool>();
}

std::string names_of(const Json& reference) {
  std::string text;
  for (const Json& name : list_field(reference, "names")) {
    if (name.is_string()) text += (text.empty() ? "" : ", ") + name.get<std::string>();
  }
  const std::string id = text_field(reference, "snapshot_id");
  return text.empty() ? id : text + " (" + id + ")";
}

void print_space(std::ostream& out, const Json& space) {
  out << fmt::format(
      "\n{}: {}, generation {:.0f}, {:.0f} extents; data {}, zeros {}; own {}, shared {}; "
      "fragmentation {:.4f}\n",
      printable(text_field(space, "name")), size_field(space, "size"), number_field(space, "generation"),
      number_field(space, "extents"), size_field(space, "data_bytes"), size_field(space, "zero_bytes"),
      size_field(space, "own_bytes"), size_field(space, "shared_bytes"), number_field(space, "fragmentation"));
  Table table({{"GEN", true},
               {"LAYER"},
               {"HERE", true},
               {"EXTENTS", true},
               {"STORED", true},
               {"FORM"},
               {"SHARED"},
               {"VERIFIED"}});
  for (const Json& layer : list_field(space, "layers")) {
    table.add({fmt::format("{:.0f}", number_field(layer, "generation")), text_field(layer, "layer_id"),
               size_field(layer, "mapped_bytes"), fmt::format("{:.0f}", number_field(layer, "extents")),
               size_field(layer, "stored_bytes"), text_field(layer, "form"), flag_field(layer, "shared") ? "yes" : "no",
               flag_field(layer, "verified") ? "yes" : "no"});
  }
  if (!table.empty()) table.print(out);
}

void print_lineage(std::ostream& out, const Json& lineage) {
  Table table({{"PARENTS"}, {"KIND"}, {"CREATED"}, {"STORED", true}});
  for (size_t i = 1; i < lineage.size(); ++i) {
    const bool exists = flag_field(lineage[i], "exists");
    table.add({names_of(lineage[i]), exists ? text_field(lineage[i], "kind") : "deleted",
               text_field(lineage[i], "created_at"), exists ? size_field(lineage[i], "stored_bytes") : ""});
  }
  if (table.empty()) return;
  out << '\n';
  table.print(out);
}

Result<int> inspect(Session& session, const InspectOptions& options) {
  STASIS_ASSIGN(Client * client, session.client());
  Progress progress(session.io(), "looking at " + options.name);
  const std::string target = "/v1/snapshots/" + percent_encode(options.name);
  STASIS_ASSIGN(Json stats, client->call("GET", target + "/stats"));
  STASIS_ASSIGN(const Json lineage, client->call("GET", target + "/lineage"));
  progress.stop();
  if (!options.svg.empty()) STASIS_TRY(write_svg(options.svg, spaces_svg(stats, names_of(stats))));
  if (session.json()) {
    stats["lineage"] = list_field(lineage, "lineage");
    session.print(stats);
    return kSuccess;
  }
  std::ostream& out = session.io().out;
  out << printable(names_of(stats)) << ": " << printable(text_field(stats, "kind")) << " of "
      << printable(text_field(stats, "created_at"))
      << fmt::format(", own {}, shared {}\n", size_field(stats, "own_bytes"), size_field(stats, "shared_bytes"));
  for (const Json& space : list_field(stats, "spaces")) print_space(out, space);
  print_lineage(out, list_field(lineage, "lineage"));
  return kSuccess;
}

Result<int> tree(Session& session, const InspectOptions& options) {
  STASIS_ASSIGN(Client * client, session.client());
  Progress progress(session.io(), "looking at the snapshots");
  STASIS_ASSIGN(const Json usage, client->call("GET", "/v1/store/usage"));
  progress.stop();
  const auto lines = tree_lines(usage);
  if (!options.svg.empty()) STASIS_TRY(write_svg(options.svg, tree_svg(lines)));
  if (session.json()) {
    session.print(usage);
    return kSuccess;
  }
  for (const TreeLine& line : lines) {
    session.io().out << line.branch << printable(line.label) << "  (" << printable(line.note) << ")\n";
  }
  return kSuccess;
}

std::string size_change(const Json& change) {
  const std::string before = size_field(change, "size_before");
  const std::string now = size_field(change, "size_now");
  if (text_field(change, "type_now").empty()) return before;
  return text_field(change, "type_before").empty() || before == now ? now : before + " -> " + now;
}

std::string type_change(const Json& change) {
  const std::string before = text_field(change, "type_before");
  const std::string now = text_field(change, "type_now");
  if (now.empty()) return before;
  return before.empty() || before == now ? now : before + " -> " + now;
}

std::string words(const Json& list) {
  std::string text;
  for (const Json& word : list) {
    if (word.is_string()) text += (text.empty() ? "" : ", ") + word.get<std::string>();
  }
  return text;
}

// The files of a disk that differ, or why nobody can tell.
void print_files(std::ostream& out, const Json& space) {
  const Json& files = object_field(space, "files");
  if (files.empty()) return;
  const std::string name = printable(text_field(space, "name"));
  if (const std::string note = text_field(files, "note"); !note.empty()) {
    out << "\nwhich files of the " << name << " differ is not known: " << printable(note) << '\n';
    return;
  }
  Table table({{"CHANGE"}, {"FILE"}, {"TYPE"}, {"SIZE", true}, {"WHAT"}});
  for (const Json& change : list_field(files, "changes")) {
    const std::string old_path = text_field(change, "old_path");
    table.add({text_field(change, "change"), (old_path.empty() ? "" : old_path + " -> ") + text_field(change, "path"),
               type_change(change), size_change(change), words(list_field(change, "what"))});
  }
  if (table.empty()) {
    out << "\nno file of the " << name << " differs\n";
    return;
  }
  out << '\n';
  table.print(out);
  double total = 0;
  for (const Json& count : object_field(files, "counts")) total += count.is_number() ? count.get<double>() : 0;
  const double more = total - static_cast<double>(list_field(files, "changes").size());
  if (more > 0) out << fmt::format("and {:.0f} more\n", more);
}

Result<int> diff(Session& session, const InspectOptions& options) {
  STASIS_ASSIGN(Client * client, session.client());
  Progress progress(session.io(), "comparing " + options.name + " with " + options.other);
  STASIS_ASSIGN(const Json answer, client->call("GET", "/v1/snapshots/" + percent_encode(options.name) +
                                                           "/diff?to=" + percent_encode(options.other)));
  progress.stop();
  if (session.json()) {
    session.print(answer);
    return kSuccess;
  }
  Table table({{"SPACE"},
               {"CHANGED", true},
               {"NOW ZEROS", true},
               {"WERE ZEROS", true},
               {"RUNS", true},
               {"READ", true},
               {"SHARED", true}});
  for (const Json& space : list_field(answer, "spaces")) {
    table.add({text_field(space, "name"), size_field(space, "changed_bytes"), size_field(space, "became_zero_bytes"),
               size_field(space, "became_data_bytes"), fmt::format("{:.0f}", number_field(space, "runs")),
               size_field(space, "compared_bytes"), size_field(space, "same_source_bytes")});
  }
  table.print(session.io().out);
  for (const Json& space : list_field(answer, "spaces")) print_files(session.io().out, space);
  return kSuccess;
}

}  // namespace

void add_inspect_commands(CommandLine& line) {
  CLI::App& group = *line.app.get_subcommand("snapshot");
  const auto options = std::make_shared<InspectOptions>();

  CLI::App& inspect_command = add_command(line, group, "inspect", "What a snapshot consists of: parents, layers, sizes",
                                          "stasis snapshot inspect warm\n"
                                          "stasis snapshot inspect warm --svg warm.svg");
  inspect_command.add_option("NAME", options->name, "Snapshot, image, or the id of a snapshot")->required();
  inspect_command.add_option("--svg", options->svg, "Draw its memory and disk into this file, coloured by generation");
  inspect_command.callback([&line, options] { line.action = [options](Session& s) { return inspect(s, *options); }; });

  CLI::App& tree_command = add_command(line, group, "tree", "Every snapshot of the host below the one it was made from",
                                       "stasis snapshot tree\n"
                                       "stasis snapshot tree --svg tree.svg");
  tree_command.add_option("--svg", options->svg, "Draw it into this file");
  tree_command.callback([&line, options] { line.action = [options](Session& s) { return tree(s, *options); }; });

  CLI::App& diff_command =
      add_command(line, group, "diff", "The blocks of memory and disk in which two snapshots differ, and the files",
                  "stasis snapshot diff before after\n"
                  "stasis snapshot diff before after --json | jq -r '.spaces[].files.changes[]?.path'");
  diff_command.add_option("A", options->name, "Snapshot, image, or the id of a snapshot")->required();
  diff_command.add_option("B", options->other, "The same")->required();
  diff_command.callback([&line, options] { line.action = [options](Session& s) { return diff(s, *options); }; });
}

}  // namespace stasis::cli
