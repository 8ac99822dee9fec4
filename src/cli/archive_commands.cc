// snapshot export, pack; and import, which is in a file of its own.
#include <memory>

#include "cli/import_command.h"
#include "cli/progress.h"
#include "cli/sandbox_view.h"

namespace stasis::cli {
namespace {

struct ExportOptions {
  std::string name;
  uint64_t from = 0;
};

Result<int> export_snapshot(Session& session, const ExportOptions& options) {
  if (session.io().out_terminal) {
    return session.usage("an archive is not for a terminal", "stasis snapshot export " + options.name + " > FILE");
  }
  STASIS_ASSIGN(Client * client, session.client());
  Progress progress(session.io(), "exporting " + options.name);
  std::ostream& out = session.io().out;
  uint64_t bytes = 0;
  const auto take = [&](std::string_view piece) -> Status {
    progress.set_detail(size_text(bytes += piece.size()));
    out.write(piece.data(), static_cast<std::streamsize>(piece.size()));
    if (!out) return fail(Code::kCancelled, "standard output cannot be written any more");
    return {};
  };
  std::string target = "/v1/snapshots/" + percent_encode(options.name) + "/export";
  if (options.from > 0) target += "?from=" + std::to_string(options.from);
  if (const auto done = client->download(target, take, "GET"); !done || !out.flush()) {
    Error error = done ? Error{Code::kCancelled, "standard output cannot be written any more"} : done.error();
    if (bytes == 0) return fail(std::move(error));
    return fail(std::move(error).with_remedy(std::to_string(options.from + bytes) +
                                             " bytes are there: add the rest with 'stasis snapshot export --from " +
                                             std::to_string(options.from + bytes) + " " + options.name + " >> FILE'"));
  }
  return kSuccess;
}

Result<int> pack_snapshot(Session& session, const std::string& name) {
  STASIS_ASSIGN(Client * client, session.client());
  Progress progress(session.io(), "packing " + name);
  STASIS_ASSIGN(const Json answer, client->call("POST", "/v1/snapshots/" + percent_encode(name) + "/pack"));
  progress.stop();
  if (session.json()) {
    session.print(answer);
    return kSuccess;
  }
  std::ostream& out = session.io().out;
  if (number_field(answer, "spaces") == 0) {
    out << "nothing to gain: what this snapshot uses is packed already, or needed by others too\n";
  } else {
    out << printable("snapshot " + name + ": " + size_field(answer, "stored_before") + " are " +
                     size_field(answer, "stored_after") + " now")
        << '\n';
  }
  return kSuccess;
}

}  // namespace

void add_archive_commands(CommandLine& line, CLI::App& group) {
  const auto leaving = std::make_shared<ExportOptions>();
  CLI::App& export_command =
      add_command(line, group, "export", "Write a snapshot to standard output, as one stream that holds everything",
                  "stasis snapshot export warm > warm.stasis\n"
                  "stasis snapshot export --from $(stat -c %s warm.stasis) warm >> warm.stasis   # go on");
  export_command.add_option("NAME", leaving->name, "Snapshot")->required();
  export_command.add_option("--from", leaving->from, "Leave out so many bytes: those that are there already");
  export_command.callback(
      [&line, leaving] { line.action = [leaving](Session& s) { return export_snapshot(s, *leaving); }; });

  add_import_command(line, group);

  const auto name = std::make_shared<std::string>();
  CLI::App& pack_command = add_command(line, group, "pack",
                                       "Compress what only this snapshot needs: it takes less space and restores more "
                                       "slowly ('stasis store compact NAME' undoes it)",
                                       "stasis snapshot pack archive-2025");
  pack_command.add_option("NAME", *name, "Snapshot")->required();
  pack_command.callback([&line, name] { line.action = [name](Session& s) { return pack_snapshot(s, *name); }; });
}

}  // namespace stasis::cli
