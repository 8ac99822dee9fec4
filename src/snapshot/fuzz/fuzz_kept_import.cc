// A hostile note of what is kept of an import: it says no more than there is, or counts as none, and a collection takes
// it then.
#include <cstdlib>

#include "base/testing/temp_dir.h"
#include "snapshot/kept_import.h"

using namespace stasis;
using namespace stasis::snapshot;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const stasis::testing::TempDir directory;
  static const Store store = Store::open(real_file_system(), directory.path() / "store").value();
  constexpr uint64_t kArchive = 4096;
  constexpr Uuid kStream{{1}};
  FileSystem& fs = store.fs();
  const Path archive = kept_archive_path(store, kStream);
  const bool there = fs.make_directory(kept_imports_dir(store)) && fs.make_directory(archive.parent_path());
  if (!there) std::abort();
  if (!exists(fs, archive)) {
    const auto file = fs.create(archive);
    if (!file || !fs.truncate(file->get(), kArchive)) std::abort();
  }
  const auto note = fs.create(archive.parent_path() / "kept");
  if (!note || !fs.write_at(note->get(), 0, std::as_bytes(std::span(data, size)))) std::abort();
  const auto kept = find_kept_import(store, kStream);
  if (kept && (kept->bytes == 0 || kept->bytes > kArchive)) std::abort();
  if (!store.collect(std::vector<BlockMap>{})) std::abort();
  if (exists(fs, archive) != kept.has_value()) std::abort();
  if (kept && !forget_kept_import(store, kStream)) std::abort();
  return 0;
}
