// snapshot create, ls, rm; export and import are in archive_commands.cc.
#include <memory>

#include "cli/command_line.h"
#include "cli/progress.h"
#include "cli/sandbox_view.h"

namespace stasis::cli {
namespace {

struct SnapshotOptions {
  std::string sandbox;
  std::string name;
  bool overwrite = false;
};

Result<int> create(Session& session, const SnapshotOptions& options) {
  STASIS_ASSIGN(Client * client, session.client());
  Progress progress(session.io(), "snapshot of " + options.sandbox);
  const Json body = {{"sandbox_id", options.sandbox}, {"name", options.name}};
  const std::string target = options.overwrite ? "/v1/snapshots?overwrite=true" : "/v1/snapshots";
  STASIS_ASSIGN(const Json snapshot, client->call("POST", target, body));
  progress.stop();
  if (session.json()) {
    session.print(snapshot);
    return kSuccess;
  }
  const std::string stored = capture_text(object_field(snapshot, "capture"));
  session.io().out << printable("snapshot " + text_field(snapshot, "name") +
                                (stored.empty() ? "" : ": stored " + stored))
                   << '\n';
  return kSuccess;
}

Result<int> list(Session& session, const std::string& type) {
  STASIS_ASSIGN(Client * client, session.client());
  Progress progress(session.io(), "listing snapshots");
  const std::string target = "/v1/snapshots" + (type.empty() ? "" : "?type=" + percent_encode(type));
  STASIS_ASSIGN(const Json answer, client->call("GET", target));
  progress.stop();
  if (session.json()) {
    session.print(answer);
    return kSuccess;
  }
  Table table = snapshot_table();
  if (const auto found = answer.find("snapshots"); found != answer.end() && found->is_array()) {
    for (const Json& snapshot : *found) add_snapshot(table, snapshot);
  }
  if (table.empty()) {
    session.io().out << "no snapshots; 'stasis snapshot create SANDBOX NAME' makes one\n";
  } else {
    table.print(session.io().out);
  }
  return kSuccess;
}

Result<int> remove(Session& session, const std::vector<std::string>& names) {
  STASIS_ASSIGN(Client * client, session.client());
  int status = kSuccess;
  for (const std::string& name : names) {
    Progress progress(session.io(), "removing snapshot " + name);
    const auto outcome = client->call("DELETE", "/v1/snapshots/" + percent_encode(name));
    progress.stop();
    if (!outcome) {
      session.report(outcome.error());
      status = session.status_of(outcome.error());
    } else if (session.json()) {
      session.print({{"name", name}, {"removed", true}});
    } else {
      session.io().out << "snapshot " << printable(name) << " is gone\n";
    }
  }
  return status;
}

}  // namespace

void add_snapshot_commands(CommandLine& line) {
  CLI::App& group =
      *line.app.add_subcommand("snapshot", "Named snapshots: templates that any number of sandboxes start from");
  group.require_subcommand(1);
  group.footer("Examples:\n  stasis snapshot create k3v9x0c2m5n8q1w4e7r6 warm\n  stasis create --template warm");

  const auto options = std::make_shared<SnapshotOptions>();
  CLI::App& create_command =
      add_command(line, group, "create", "Snapshot a sandbox under a name; a running one goes on running",
                  "stasis snapshot create k3v9x0c2m5n8q1w4e7r6 warm\n"
                  "stasis snapshot create --overwrite k3v9x0c2m5n8q1w4e7r6 warm");
  create_command.add_option("SANDBOX", options->sandbox, "Sandbox")->required();
  create_command.add_option("NAME", options->name, "Name of the snapshot")->required();
  create_command.add_flag("--overwrite", options->overwrite, "Replace a snapshot of this name; its clones go on");
  create_command.callback([&line, options] { line.action = [options](Session& s) { return create(s, *options); }; });

  const auto type = std::make_shared<std::string>();
  CLI::App& list_command = add_command(line, group, "ls", "List images and snapshots",
                                       "stasis snapshot ls\n"
                                       "stasis snapshot ls --type snapshot --json");
  list_command.add_option("--type", *type, "Only of this type: base or snapshot")
      ->check(CLI::IsMember({"base", "snapshot"}));
  list_command.callback([&line, type] { line.action = [type](Session& s) { return list(s, *type); }; });

  const auto names = std::make_shared<std::vector<std::string>>();
  CLI::App& remove_command =
      add_command(line, group, "rm", "Delete snapshots; sandboxes made from them go on", "stasis snapshot rm warm");
  remove_command.add_option("NAME", *names, "Snapshots")->required();
  remove_command.callback([&line, names] { line.action = [names](Session& s) { return remove(s, *names); }; });
  add_archive_commands(line, group);
}

}  // namespace stasis::cli
