// snapshot import: standard input becomes a snapshot. Which archive it is follows from its beginning, so that one that
// broke is found again: the host has kept what had come, and --resume sends the rest.
#include "cli/import_command.h"

#include <algorithm>
#include <cstring>
#include <memory>

#include "base/uuid.h"
#include "cli/progress.h"
#include "cli/table.h"
#include "snapshot/checksum.h"

namespace stasis::cli {
namespace {

constexpr size_t kChunk = size_t{256} << 10;
// Manifest, name and device state are in it: no two snapshots have the same.
constexpr size_t kHead = size_t{64} << 10;

struct ImportOptions {
  std::string name;
  bool overwrite = false;
  bool resume = false;
};

// What the host has of an archive, as it says.
struct Kept {
  uint64_t bytes = 0;
  std::string checksum;
};

// The archive on standard input, piece by piece.
class Archive {
 public:
  explicit Archive(std::istream& in) : in_(in), chunk_(kChunk) { read(kHead); }

  // The same for the same archive.
  Uuid stream() const {
    const auto head = std::as_bytes(rest_);
    snapshot::Checksum other;
    other.update(std::as_bytes(std::span("stasis import", 13)));
    other.update(head);
    const uint64_t halves[] = {snapshot::checksum(head), other.digest()};
    Uuid id;
    std::memcpy(id.bytes.data(), halves, sizeof(halves));
    return id;
  }

  // Passes over what the host has.
  Status skip(const Kept& kept) {
    snapshot::Checksum sum;
    while (passed_ < kept.bytes) {
      const std::span<const char> piece = take(kept.bytes - passed_);
      if (piece.empty()) {
        return fail(Code::kInvalidArgument,
                    "standard input ends after " + std::to_string(passed_) + " bytes, and the host has kept " +
                        std::to_string(kept.bytes) + " of this archive",
                    "give it the archive from its beginning; without --resume it is sent as it is");
      }
      sum.update(std::as_bytes(piece));
    }
    if (snapshot::checksum_text(sum.digest()) == kept.checksum) return {};
    return fail(Code::kFailedPrecondition,
                "this archive has changed since " + std::to_string(kept.bytes) + " bytes of it were kept",
                "import it without --resume");
  }

  // Empty at the end.
  std::span<const char> next() { return take(kChunk); }
  uint64_t passed() const { return passed_; }

 private:
  std::span<const char> take(uint64_t most) {
    if (rest_.empty()) read(kChunk);
    const auto piece = rest_.first(static_cast<size_t>(std::min<uint64_t>(most, rest_.size())));
    rest_ = rest_.subspan(piece.size());
    passed_ += piece.size();
    return piece;
  }

  void read(size_t most) {
    in_.read(chunk_.data(), static_cast<std::streamsize>(most));
    rest_ = std::span<const char>(chunk_).first(static_cast<size_t>(in_.gcount()));
  }

  std::istream& in_;
  std::vector<char> chunk_;
  std::span<const char> rest_;
  uint64_t passed_ = 0;
};

// Nothing is kept: 0 bytes.
Result<Kept> ask_kept(Client& client, const std::string& stream) {
  const auto answer = client.call("GET", "/v1/imports/" + stream);
  if (!answer && answer.error().code == Code::kNotFound) return Kept();
  if (!answer) return fail(answer.error());
  return Kept{static_cast<uint64_t>(number_field(*answer, "kept_bytes")), text_field(*answer, "kept_xxh3")};
}

// What broke can be gone on with, if anything of it is kept: said behind the error's own remedy.
Error with_way_on(Client& client, const std::string& stream, Error error) {
  const auto kept = ask_kept(client, stream);
  std::string way;
  if (!kept) way = "what has come may be kept: when the server answers again, try 'stasis snapshot import --resume'";
  if (kept && kept->bytes > 0) {
    way = size_text(kept->bytes) + " are kept for two days: go on with the same archive and " +
          "'stasis snapshot import --resume'";
  }
  if (way.empty()) return error;
  if (!error.remedy.empty()) way = error.remedy + "; " + way;
  return std::move(error).with_remedy(way);
}

std::string target_of(const ImportOptions& options, const std::string& stream, const Kept& kept) {
  std::string target = "/v1/snapshots/import?overwrite=" + std::string(options.overwrite ? "true" : "false");
  if (!options.name.empty()) target += "&name=" + percent_encode(options.name);
  target += "&stream=" + stream;
  if (kept.bytes > 0) target += "&kept_bytes=" + std::to_string(kept.bytes) + "&kept_xxh3=" + kept.checksum;
  return target;
}

Result<int> import_snapshot(Session& session, const ImportOptions& options) {
  STASIS_ASSIGN(Client * client, session.client());
  Progress progress(session.io(), "importing");
  Archive archive(session.io().in);
  const std::string stream = archive.stream().text();
  Kept kept;
  if (options.resume) {
    STASIS_ASSIGN(kept, ask_kept(*client, stream));
    if (kept.bytes > 0) STASIS_TRY(archive.skip(kept));
  }
  const auto next = [&]() -> Result<std::span<const char>> {
    const std::span<const char> piece = archive.next();
    progress.set_detail(size_text(archive.passed()));
    return piece;
  };
  const auto snapshot = client->upload(target_of(options, stream, kept), {}, next);
  progress.stop();
  if (!snapshot) return fail(with_way_on(*client, stream, snapshot.error()));
  if (session.json()) {
    session.print(*snapshot);
    return kSuccess;
  }
  const std::string before = kept.bytes == 0 ? "" : ", " + size_text(kept.bytes) + " of it kept from before";
  session.io().out << printable("snapshot " + text_field(*snapshot, "name") + ": " + size_text(archive.passed()) +
                                " read" + before + ", " + size_field(*snapshot, "size_bytes") + " stored")
                   << '\n';
  return kSuccess;
}

}  // namespace

void add_import_command(CommandLine& line, CLI::App& group) {
  const auto options = std::make_shared<ImportOptions>();
  CLI::App& command = add_command(line, group, "import", "Make a snapshot of an archive on standard input",
                                  "stasis snapshot import < warm.stasis\n"
                                  "stasis snapshot import --resume < warm.stasis   # go on after a break\n"
                                  "ssh other stasis snapshot export warm | stasis snapshot import --name warm2");
  command.add_option("--name", options->name, "Name of the snapshot (default: as it was exported)");
  command.add_flag("--overwrite", options->overwrite, "Replace a snapshot of this name; its clones go on");
  command.add_flag("--resume", options->resume,
                   "Go on with an import that broke: what has come of the same archive is not sent again");
  command.callback([&line, options] { line.action = [options](Session& s) { return import_snapshot(s, *options); }; });
}

}  // namespace stasis::cli
