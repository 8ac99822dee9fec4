// The records of an archive: how they are framed, and the reader that checks everything that can be said of a record
// without knowing what came before.
#pragma once

#include <memory>

#include "snapshot/archive.h"
#include "snapshot/checksum.h"

struct ZSTD_CCtx_s;
struct ZSTD_DCtx_s;

namespace stasis::snapshot {

enum class RecordKind : uint32_t {
  kManifest = 1,  // a manifest without block maps
  kNote = 2,
  kState = 3,   // the device state, or the next piece of it
  kSpace = 4,   // an address space begins
  kWindow = 5,  // 1 MiB of it: which blocks are live, and those
  kEnd = 6,     // number of records before, checksum of their headers
};

inline constexpr uint64_t kArchiveWindow = uint64_t{1} << 20;
inline constexpr size_t kWindowBlocks = kArchiveWindow / kBlockSize;
inline constexpr size_t kWindowBitmap = kWindowBlocks / 8;
inline constexpr size_t kMaxPayload = kWindowBitmap + kArchiveWindow;
inline constexpr size_t kSpacePayload = 48;
inline constexpr size_t kEndPayload = 16;

struct Record {
  RecordKind kind = RecordKind::kEnd;
  uint32_t space = 0;   // 1: memory, 2: disk; 0 where it does not apply
  uint64_t offset = 0;  // of the payload in the state, or of the window
  std::span<const std::byte> payload;
};

class RecordWriter {
 public:
  RecordWriter();
  ~RecordWriter();
  RecordWriter(const RecordWriter&) = delete;
  RecordWriter& operator=(const RecordWriter&) = delete;
  // The record's bytes, valid until the next call.
  Result<std::span<const std::byte>> encode(const Record& record);
  // The last one.
  Result<std::span<const std::byte>> encode_end();

 private:
  ZSTD_CCtx_s* zstd_;
  std::vector<std::byte> out_;
  uint64_t count_ = 0;
  Checksum headers_;
};

class RecordReader {
 public:
  explicit RecordReader(const ArchiveSource& source);
  ~RecordReader();
  RecordReader(const RecordReader&) = delete;
  RecordReader& operator=(const RecordReader&) = delete;
  // The next one; its payload is valid until the next call. After kEnd the stream has ended, and is whole.
  Result<Record> next();

 private:
  Status read_exactly(std::span<std::byte> out);
  Status check_end(const Record& record);

  const ArchiveSource& source_;
  ZSTD_DCtx_s* zstd_;
  std::vector<std::byte> packed_;
  std::vector<std::byte> payload_;
  uint64_t count_ = 0;
  uint64_t position_ = 0;  // bytes read
  Checksum headers_;
};

}  // namespace stasis::snapshot
