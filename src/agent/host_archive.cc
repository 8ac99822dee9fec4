// Host: snapshots that leave and arrive as archives.
#include <nlohmann/json.hpp>

#include "agent/host.h"
#include "snapshot/verified.h"

namespace stasis::agent {
namespace {

using nlohmann::json;

// A pause must find room, and an archive of a few MiB may say that it is terabytes.
constexpr uint64_t kFreeAfterAnImport = uint64_t{1} << 30;

// What this room adds to an archive: {"name", "access_token"}. The guest's memory holds the token anyway, and without
// it nobody could give the restored guest a new one.
struct Note {
  std::string name;
  std::string access_token;
};

Result<Note> parse_note(const std::string& text) {
  const json object = json::parse(text, nullptr, false);
  const auto field = [&](const char* key) -> std::string {
    const auto found = object.find(key);
    return found != object.end() && found->is_string() ? found->get<std::string>() : "";
  };
  if (!object.is_object()) return fail(Code::kDataLoss, "the archive's note is no JSON object");
  return Note{field("name"), field("access_token")};
}

}  // namespace

Result<uint64_t> Host::export_snapshot(snapshot::SnapshotId id, const std::string& name, uint64_t from,
                                       const snapshot::ArchiveSink& sink) const {
  snapshot::ExportOptions options;
  const json note{{"name", name}, {"access_token", tokens_.find(id)}};
  options.note = note.dump(-1, ' ', true, json::error_handler_t::replace);
  options.from = from;
  options.limit = RateLimit(0, stop_.fd());
  return snapshot::export_snapshot(store_, id, std::move(options), sink);
}

Result<std::string> Host::archive_name(const snapshot::ArchiveSource& head) {
  STASIS_ASSIGN(const std::string text, snapshot::read_archive_note(head));
  STASIS_ASSIGN(Note note, parse_note(text));
  return std::move(note.name);
}

Result<Host::KeptImport> Host::kept_import(const Uuid& stream) const {
  STASIS_ASSIGN(const snapshot::Kept kept, snapshot::find_kept_import(store_, stream));
  STASIS_ASSIGN(const UniqueFd archive, store_.fs().open_read(snapshot::kept_archive_path(store_, stream)));
  uint64_t position = 0;
  const auto head = [&](std::span<std::byte> out) -> Result<size_t> {
    STASIS_ASSIGN(const size_t n, store_.fs().read_at(archive.get(), position, out));
    position += n;
    return n;
  };
  // Less than its head may be kept: then nobody knows yet.
  const auto name = archive_name(head);
  return KeptImport{kept, name.value_or("")};
}

Result<Host::Imported> Host::import_snapshot(snapshot::SnapshotId id,
                                             const std::optional<snapshot::ImportStream>& stream,
                                             const snapshot::ArchiveSource& source) {
  {
    const std::lock_guard lock(mutex_);
    if (is_published(id) || !importing_.insert(id).second) {
      return fail(Code::kAlreadyExists, "there is a snapshot " + id.text() + " already");
    }
  }
  auto imported = import_archive(id, stream, source);
  const std::lock_guard lock(mutex_);
  importing_.erase(id);
  return imported;
}

Result<Host::Imported> Host::import_archive(snapshot::SnapshotId id,
                                            const std::optional<snapshot::ImportStream>& stream,
                                            const snapshot::ArchiveSource& source) {
  if (stream && snapshot::no_place_for_import(store_)) {
    collect_wanted_ = true;  // what nobody goes on with must not be in the way
    (void)collect();
  }
  Imported imported;
  snapshot::ImportOptions options;
  options.id = id;
  options.free_afterwards = kFreeAfterAnImport;
  options.on_note = [&](const std::string& text) -> Status {
    STASIS_ASSIGN(const Note note, parse_note(text));
    imported.name = note.name;
    return tokens_.keep(id, note.access_token);
  };
  const auto pieces = [&](std::span<std::byte> out) -> Result<size_t> {
    if (stopping_) return fail(Code::kUnavailable, "the host agent stops", "ask again in a moment");
    return source(out);
  };
  auto manifest = stream ? snapshot::import_kept_snapshot(store_, options, *stream, pieces)
                         : snapshot::import_snapshot(store_, options, pieces);
  if (!manifest) {
    if (!is_published(id)) tokens_.forget(id);
    return fail(std::move(manifest).error());
  }
  imported.manifest = std::move(*manifest);
  STASIS_ASSIGN(const snapshot::StoreLock lock, store_.lock_shared());
  STASIS_ASSIGN(const snapshot::BlockMap disk, store_.read_map(id, *imported.manifest.disk_map));
  STASIS_ASSIGN(const snapshot::BlockMap memory, store_.read_map(id, *imported.manifest.memory_map));
  for (const auto layers : {memory.layers(), disk.layers()}) {
    for (const snapshot::LayerId layer : layers) snapshot::VerifiedLayers(store_).note_written(layer);
  }
  imported.disk_bytes = disk.size();
  return imported;
}

}  // namespace stasis::agent
