// cp: one file into a sandbox or out of it.
#include <filesystem>
#include <memory>
#include <optional>

#include "cli/command_line.h"
#include "cli/copy.h"
#include "cli/local_file.h"
#include "cli/progress.h"
#include "cli/sandbox_view.h"

namespace stasis::cli {
namespace {

constexpr size_t kChunk = size_t{256} << 10;

struct CopyOptions {
  std::string source;
  std::string target;
  std::string user;
};

std::string files_target(const Place& place, const std::string& operation, const std::string& user) {
  std::string target = sandbox_path(place.sandbox, "/files/" + operation) + "?path=" + percent_encode(place.path);
  if (!user.empty()) target += "&user=" + percent_encode(user);
  return target;
}

int finished(Session& session, const CopyOptions& options, uint64_t bytes) {
  if (session.json()) {
    session.print({{"source", options.source}, {"target", options.target}, {"bytes", bytes}});
  } else {
    session.io().out << printable(options.target) << ": " << size_text(bytes) << '\n';
  }
  return kSuccess;
}

Result<int> upload(Session& session, const CopyOptions& options, const Place& from, Place to) {
  STASIS_ASSIGN(Client * client, session.client());
  Progress progress(session.io(), "copying to " + to.sandbox + ":" + to.path);
  std::optional<LocalReader> reader;
  if (from.path != "-") {
    to.path = path_in(to.path, from.path, false);
    STASIS_ASSIGN(reader, LocalReader::open(from.path));
  }
  uint64_t bytes = 0;
  std::vector<char> chunk(kChunk);
  const auto next = [&]() -> Result<std::span<const char>> {
    std::span<const char> piece;
    if (reader) {
      STASIS_ASSIGN(piece, reader->next());
    } else {
      session.io().in.read(chunk.data(), static_cast<std::streamsize>(chunk.size()));
      piece = {chunk.data(), static_cast<size_t>(session.io().in.gcount())};
    }
    progress.set_detail(size_text(bytes += piece.size()));
    return piece;
  };
  const auto size = reader ? reader->size() : std::nullopt;
  STASIS_TRY(client->upload(files_target(to, "write", options.user), size, next));
  progress.stop();
  return finished(session, options, bytes);
}

Result<int> download(Session& session, const CopyOptions& options, const Place& from, const Place& to) {
  STASIS_ASSIGN(Client * client, session.client());
  Progress progress(session.io(), "copying from " + from.sandbox + ":" + from.path);
  std::optional<LocalWriter> writer;
  std::error_code error;
  if (to.path != "-") {
    auto opened = LocalWriter::open(path_in(to.path, from.path, std::filesystem::is_directory(to.path, error)));
    if (!opened) return fail(opened.error());
    writer.emplace(std::move(*opened));
  }
  std::ostream& out = session.io().out;
  uint64_t bytes = 0;
  const auto take = [&](std::string_view piece) -> Status {
    progress.set_detail(size_text(bytes += piece.size()));
    if (writer) return writer->write(piece);
    out.write(piece.data(), static_cast<std::streamsize>(piece.size()));
    if (!out) return fail(Code::kCancelled, "standard output cannot be written any more");
    return {};
  };
  STASIS_TRY(client->download(files_target(from, "read", options.user), take));
  if (!writer) {
    out.flush();
    return kSuccess;  // the file is all that belongs on standard output
  }
  STASIS_TRY(writer->commit());
  progress.stop();
  return finished(session, options, bytes);
}

Result<int> copy(Session& session, const CopyOptions& options) {
  const auto from = parse_place(options.source);
  const auto to = parse_place(options.target);
  if (!from) return session.usage(from.error().message, from.error().remedy);
  if (!to) return session.usage(to.error().message, to.error().remedy);
  if (from->remote() == to->remote()) {
    return session.usage(
        from->remote() ? "cp does not copy from one sandbox to another" : "neither path is in a sandbox",
        "one of the two is ID:path, the other a path on this machine");
  }
  if (from->remote() && from->path.ends_with('/')) {
    return session.usage("'" + options.source + "' names a directory",
                         "copy single files, or an archive: stasis exec ID -- tar -c DIR > dir.tar");
  }
  return from->remote() ? download(session, options, *from, *to) : upload(session, options, *from, *to);
}

}  // namespace

void add_cp_command(CommandLine& line) {
  CLI::App& command =
      add_command(line, line.app, "cp", "Copy a file into a sandbox or out of it; - is standard input or output",
                  "stasis cp data.csv k3v9x0c2m5n8q1w4e7r6:/home/user/data.csv\n"
                  "stasis cp k3v9x0c2m5n8q1w4e7r6:/var/log/syslog .\n"
                  "tar -c src | stasis cp - k3v9x0c2m5n8q1w4e7r6:/tmp/src.tar");
  const auto options = std::make_shared<CopyOptions>();
  command.add_option("SRC", options->source, "PATH, or ID:PATH in a sandbox")->required();
  command.add_option("DST", options->target, "PATH, or ID:PATH in a sandbox")->required();
  command.add_option("-u,--user", options->user, "User whose file it is in the sandbox (default: the guest's)");
  command.callback([&line, options] { line.action = [options](Session& session) { return copy(session, *options); }; });
}

}  // namespace stasis::cli
