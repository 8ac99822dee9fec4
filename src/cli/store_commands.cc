// store df, gc, compact.
#include <memory>

#include "cli/command_line.h"
#include "cli/progress.h"
#include "cli/span_of_time.h"
#include "cli/table.h"

namespace stasis::cli {
namespace {

uint64_t bytes_field(const Json& object, const char* key) { return static_cast<uint64_t>(number_field(object, key)); }

std::string joined(const Json& holder, const char* key) {
  std::string text;
  const auto found = holder.find(key);
  if (found == holder.end() || !found->is_array()) return text;
  for (const Json& one : *found) {
    if (one.is_string()) text += (text.empty() ? "" : ",") + one.get<std::string>();
  }
  return text;
}

// "base", "warm", "paused k3v9...", or nothing for a snapshot that only others stand on.
std::string name_of(const Json& holder) {
  std::string names = joined(holder, "names");
  const std::string sandboxes = joined(holder, "sandboxes");
  if (sandboxes.empty()) return names;
  return names + (names.empty() ? "" : ", ") + "paused " + sandboxes;
}

// What the host's own verification has found, for people.
void print_scrub(std::ostream& out, const Json& scrub) {
  const std::string started = text_field(scrub, "started_at");
  const std::string finished = text_field(scrub, "finished_at");
  const bool under_way = scrub.value("under_way", Json()) == Json(true);
  if (started.empty()) {
    out << "scrub: not begun yet\n";
    return;
  }
  out << printable("scrub: " + (under_way ? "under way since " + started : "ended " + finished) + ", " +
                   size_field(scrub, "checked_bytes") + " checked");
  const Json& damaged = list_field(scrub, "damaged");
  out << (damaged.empty() ? ", nothing damaged\n"
                          : ", " + std::to_string(damaged.size()) +
                                " damaged ('stasis snapshot verify --all' says who needs them):\n");
  for (const Json& file : damaged) {
    if (file.is_string()) out << "  " << printable(file.get<std::string>()) << '\n';
  }
}

Result<int> usage(Session& session) {
  STASIS_ASSIGN(Client * client, session.client());
  Progress progress(session.io(), "measuring the store");
  STASIS_ASSIGN(const Json answer, client->call("GET", "/v1/store/usage"));
  progress.stop();
  if (session.json()) {
    session.print(answer);
    return kSuccess;
  }
  Table table({{"KIND"}, {"ID"}, {"NAME"}, {"OWN", true}, {"SHARED", true}, {"NOTE"}});
  if (const auto holders = answer.find("holders"); holders != answer.end() && holders->is_array()) {
    for (const Json& holder : *holders) {
      table.add({text_field(holder, "kind"), text_field(holder, "id"), name_of(holder), size_field(holder, "own_bytes"),
                 size_field(holder, "shared_bytes"), text_field(holder, "damage")});
    }
  }
  std::ostream& out = session.io().out;
  table.print(out);
  const auto reclaimable = answer.find("reclaimable_bytes");
  const bool known = reclaimable != answer.end() && reclaimable->is_number();
  out << "total " << size_field(answer, "total_bytes") << " in " << bytes_field(answer, "layers")
      << " layers; reclaimable "
      << (known ? size_text(reclaimable->get<uint64_t>()) : "not known now: something is written, or damaged") << '\n';
  if (const Json& scrub = object_field(answer, "scrub"); !scrub.empty()) print_scrub(out, scrub);
  return kSuccess;
}

struct CollectOptions {
  bool dry_run = false;
  std::string grace;
};

Result<int> collect(Session& session, const CollectOptions& options) {
  Json body = {{"dry_run", options.dry_run}};
  if (!options.grace.empty()) {
    const auto seconds = parse_span_of_time(options.grace);
    if (!seconds) return session.usage(seconds.error().message, seconds.error().remedy);
    body["grace_sec"] = *seconds;
  }
  STASIS_ASSIGN(Client * client, session.client());
  Progress progress(session.io(), options.dry_run ? "looking for what nothing needs" : "removing what nothing needs");
  STASIS_ASSIGN(const Json answer, client->call("POST", "/v1/store/gc", body));
  progress.stop();
  if (session.json()) {
    session.print(answer);
    return kSuccess;
  }
  std::ostream& out = session.io().out;
  const uint64_t count = bytes_field(answer, "count");
  Table table({{"FILE"}, {"SIZE", true}});
  if (const auto removed = answer.find("removed"); removed != answer.end() && removed->is_array()) {
    for (const Json& one : *removed) table.add({text_field(one, "file"), size_text(bytes_field(one, "bytes"))});
  }
  if (!table.empty()) table.print(out);
  out << (options.dry_run ? "would remove " : "removed ") << count << " files, "
      << size_text(bytes_field(answer, "bytes"));
  if (const uint64_t young = bytes_field(answer, "kept_young"); young > 0) out << "; " << young << " too young";
  out << '\n';
  return kSuccess;
}

Result<int> compact(Session& session, const std::string& name) {
  STASIS_ASSIGN(Client * client, session.client());
  Progress progress(session.io(), name.empty() ? "compacting" : "compacting " + name);
  const Json body = name.empty() ? Json::object() : Json{{"name", name}};
  STASIS_ASSIGN(const Json answer, client->call("POST", "/v1/store/compact", body));
  progress.stop();
  if (session.json()) {
    session.print(answer);
    return kSuccess;
  }
  uint64_t rewritten = 0;
  if (const auto found = answer.find("snapshots"); found != answer.end() && found->is_array()) {
    for (const Json& snapshot : *found) {
      const auto number = [&](const char* key) { return static_cast<uint64_t>(number_field(snapshot, key)); };
      if (number("spaces") == 0) continue;
      ++rewritten;
      session.io().out << printable("snapshot " + (name.empty() ? text_field(snapshot, "snapshot_id") : name)) << ": "
                       << number("layers_before") << " layers are " << number("spaces") << " now, "
                       << size_text(number("live_bytes")) << '\n';
    }
  }
  if (rewritten == 0) session.io().out << "nothing to gain\n";
  return kSuccess;
}

}  // namespace

void add_store_commands(CommandLine& line) {
  CLI::App& group = *line.app.add_subcommand("store", "The host's store of layers and snapshots");
  group.require_subcommand(1);
  group.footer("Examples:\n  stasis store df\n  stasis store gc --dry-run\n  stasis store compact");

  CLI::App& usage_command = add_command(
      line, group, "df", "Who takes how much: own bytes go with a snapshot, shared ones are needed by others",
      "stasis store df\n"
      "stasis store df --json | jq .reclaimable_bytes");
  usage_command.callback([&line] { line.action = [](Session& s) { return usage(s); }; });

  const auto options = std::make_shared<CollectOptions>();
  CLI::App& collect_command = add_command(
      line, group, "gc", "Remove what no snapshot, image or sandbox needs (the host also does so by itself)",
      "stasis store gc --dry-run\n"
      "stasis store gc --grace 1h");
  collect_command.add_flag("--dry-run", options->dry_run, "Only say what would be removed");
  collect_command.add_option("--grace", options->grace, "Keep what is younger: 90s, 15m, 2h, 7d (default: 0s)");
  collect_command.callback([&line, options] { line.action = [options](Session& s) { return collect(s, *options); }; });

  const auto name = std::make_shared<std::string>();
  CLI::App& compact_command =
      add_command(line, group, "compact",
                  "Copy what a snapshot uses into one layer each for memory and disk, now (the host does it by itself "
                  "where it is worth it)",
                  "stasis store compact warm\n"
                  "stasis store compact");
  compact_command.add_option("NAME", *name, "Snapshot (default: wherever it is worth it)");
  compact_command.callback([&line, name] { line.action = [name](Session& s) { return compact(s, *name); }; });
}

}  // namespace stasis::cli
