#include "snapshot/verified.h"

#include "base/boot_id.h"
#include "base/file_identity.h"
#include "snapshot/files.h"

namespace stasis::snapshot {
namespace {

constexpr uint64_t kMaxNote = 256;  // bytes

}  // namespace

Result<std::string> VerifiedLayers::identity(LayerId id) const {
  std::string boot = boot_id_;
  if (boot.empty()) {
    STASIS_ASSIGN(boot, boot_id());
  }
  STASIS_ASSIGN(const LayerFile file, find_layer(store_.fs(), store_.layers_dir(), id));
  STASIS_ASSIGN(const std::string identity, file_identity(file.path));
  return boot + " " + identity + "\n";
}

// Renamed into place, so that it is whole or not there; not synced, because a power cut makes it void anyway.
Status VerifiedLayers::note(LayerId id, const std::string& identity) const {
  STASIS_ASSIGN(const std::string now, this->identity(id));
  if (now != identity) return fail(Code::kAborted, "layer " + id.text() + " has changed while it was verified");
  FileSystem& fs = store_.fs();
  STASIS_TRY(fs.make_directory(directory()));
  const Path path = directory() / id.text();
  // Of a name of its own: two processes may have verified the layer at the same time.
  const Path temporary = temporary_of(directory() / (id.text() + "." + Uuid::random().text()));
  const auto write = [&]() -> Status {
    STASIS_ASSIGN(const UniqueFd fd, fs.create(temporary));
    STASIS_TRY(fs.write_at(fd.get(), 0, std::as_bytes(std::span(identity))));
    return fs.rename(temporary, path);
  };
  Status written = write();
  if (!written) (void)fs.remove(temporary);
  return written;
}

void VerifiedLayers::note_written(LayerId id) const {
  if (const auto now = identity(id)) (void)note(id, *now);
}

void VerifiedLayers::forget(LayerId id) const { (void)store_.fs().remove(directory() / id.text()); }

bool VerifiedLayers::holds(LayerId id) const {
  const auto noted = read_file(store_.fs(), directory() / id.text(), kMaxNote);
  if (!noted) return false;
  const auto now = identity(id);
  return now && std::string_view(reinterpret_cast<const char*>(noted->data()), noted->size()) == *now;
}

}  // namespace stasis::snapshot
