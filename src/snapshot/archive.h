// Archives: one snapshot as one stream of bytes (format in docs/format.md), to be kept, or carried to another host. A
// stream holds everything: manifest, device state, every live block of memory and disk, flattened, so that it needs no
// layer of the store it came from. It is a plain zstd stream too: each record is a skippable frame with a header and
// a frame with at most 1 MiB of payload, so that both sides need little memory. Each payload has a checksum, and the
// last record one of all headers: what was torn, flipped, cut out or put together from two streams is refused.
//
// The same snapshot gives the same bytes (with the same version of libzstd), also after a compaction; so a transfer
// that broke goes on at any offset. An import makes a new snapshot: fresh id, fresh layers, so that it can stand beside
// the original. It appears whole or not at all.
#pragma once

#include <functional>
#include <string>

#include "base/rate_limit.h"
#include "snapshot/store.h"

namespace stasis::snapshot {

inline constexpr uint64_t kMaxArchiveNote = 4096;  // bytes

struct ExportOptions {
  std::string note;   // of whoever exports, handed to whoever imports: at most kMaxArchiveNote bytes
  uint64_t from = 0;  // leaves out so many bytes at the start
  RateLimit limit;    // what cancels
};

// Takes the next bytes; an error ends the export and is returned.
using ArchiveSink = std::function<Status(std::span<const std::byte>)>;

// Returns the length of the whole archive, with what was left out. kNotFound; kFailedPrecondition for an image;
// kDataLoss if a frame is damaged: what was handed over before is no whole archive, and no reader takes it for one.
// kOutOfRange if `from` is behind the end. Holds no lock while it reads.
Result<uint64_t> export_snapshot(const Store& store, SnapshotId id, ExportOptions options, const ArchiveSink& sink);

// Gives at most out.size() bytes, none at the end.
using ArchiveSource = std::function<Result<size_t>(std::span<std::byte>)>;

struct ImportOptions {
  SnapshotId id;  // what it is to be: must be free
  // Called with the note before the snapshot exists; an error ends the import and is returned.
  std::function<Status(const std::string&)> on_note = [](const std::string&) { return Status(); };
  // Bytes that the store's file system keeps free. What an archive writes has nothing to do with its length: constant
  // memory is packed ten thousand times.
  uint64_t free_afterwards = 0;
};

// Reads to the end of the stream and publishes. kInvalidArgument if it is no archive, kDataLoss if it is a damaged one,
// kResourceExhausted if it needs more than there is room for; whatever fails, nothing stays.
Result<Manifest> import_snapshot(const Store& store, const ImportOptions& options, const ArchiveSource& source);

// The note of an archive, from its first kArchiveHead bytes or less. Errors as of an import.
inline constexpr size_t kArchiveHead = 80 << 10;
Result<std::string> read_archive_note(const ArchiveSource& source);

}  // namespace stasis::snapshot
