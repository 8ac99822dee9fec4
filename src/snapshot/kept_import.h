// What has arrived of an archive, kept while its import is not done: an import that broke (the sender, the server or
// this host's agent went away) goes on behind it. The store's directory imports/<stream>/ holds, for each stream:
//   archive   the first bytes of the archive, as they came
//   kept      how many of them count, and their checksum (docs/format.md); written when they are synced
// The bytes are kept beside the import, which reads and checks each of them as it comes; one that goes on first reads
// what is kept again. So whatever was left half-way is rubbish as it always was, and nothing that counts hangs on it.
//
// Who sends a stream names it, by something that follows from the archive. There are at most kMaxKeptImports; one more
// is imported and not kept. A collection removes what has not grown for kKeptImportAge and nobody is at work on.
#pragma once

#include <chrono>
#include <optional>

#include "snapshot/archive.h"
#include "snapshot/checksum.h"

namespace stasis::snapshot {

inline constexpr size_t kMaxKeptImports = 8;
inline constexpr std::chrono::hours kKeptImportAge{48};

struct Kept {
  uint64_t bytes = 0;
  uint64_t checksum = 0;  // XXH3 of them
  friend bool operator==(const Kept&, const Kept&) = default;
};

// Where they all are. It need not exist.
Path kept_imports_dir(const Store& store);
Path kept_archive_path(const Store& store, const Uuid& stream);

// kNotFound if nothing is kept of that stream.
Result<Kept> find_kept_import(const Store& store, const Uuid& stream);
// Success if there is nothing; kAborted while an import of it is under way.
Status forget_kept_import(const Store& store, const Uuid& stream);

// Whether as many are kept as there may be, so that the next one would not be.
bool no_place_for_import(const Store& store);

struct ImportStream {
  Uuid id;
  // What `source` leaves out because it is kept: must be what find_kept_import() says. Nothing: `source` begins at the
  // beginning, and what is kept stays as far as the same bytes come again.
  Kept from = {};
};

// import_snapshot() of a stream that is kept as it comes. kFailedPrecondition if not that is kept what `stream.from`
// says, kAborted if another import of the stream is under way. When it fails what has come stays, unless the archive
// itself is what is wrong; when it succeeds too: forget_kept_import() is the caller's, who may refuse the snapshot yet.
// Keeping never fails an import: where it fails (a full device), what is kept goes and the import goes on.
Result<Manifest> import_kept_snapshot(const Store& store, const ImportOptions& options, const ImportStream& stream,
                                      const ArchiveSource& source);

}  // namespace stasis::snapshot
