// What stasis-files tells the agent: which files differ between two disks, or why that cannot be told. It is made by a
// process that has read what a guest wrote, so the reader trusts nothing: decode() bounds every length and count. The
// bytes go through a pipe between two programs of one build and are kept nowhere. All numbers are little-endian.
//   u32 magic, u32 kind
//   kind 1, an error:  u32 code (result.h), u32 length, message
//   kind 2, changes:   6 x u64 how many of each kind there are, u32 how many follow, and each of these:
//     u8 kind, u8 type before, u8 type now, u8 what (bits), u64 size before, u64 size now,
//     u32 length of the path, u32 length of the old path, path, old path
// Nothing follows. The changes are sorted by path, each path once.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace stasis::files {

inline constexpr size_t kMaxChangesTold = 10'000;
inline constexpr size_t kMaxPath = 4096;                  // bytes
inline constexpr size_t kMaxPathBytes = size_t{2} << 20;  // of all changes told
inline constexpr size_t kMaxReport = size_t{3} << 20;     // bytes

enum class ChangeKind : uint8_t {
  kAdded,
  kRemoved,
  kModified,  // other content, perhaps other metadata too
  kMetadata,  // the same content
  kType,      // a file where a directory was, ...
  kRenamed,   // perhaps with other content or metadata
};
inline constexpr size_t kChangeKinds = 6;

enum class FileType : uint8_t {
  kNone,
  kFile,
  kDirectory,
  kSymlink,
  kCharacterDevice,
  kBlockDevice,
  kFifo,
  kSocket,
  kUnknown
};
inline constexpr size_t kFileTypes = 9;

// Words for people and programs: "added", "metadata", ...; "file", "directory", ..., "" for kNone.
std::string_view change_kind_name(ChangeKind kind);
std::string_view file_type_name(FileType type);

// Bits of FileChange::what.
inline constexpr uint8_t kContentChanged = 1;
inline constexpr uint8_t kModeChanged = 2;        // permissions
inline constexpr uint8_t kOwnerChanged = 4;       // user or group
inline constexpr uint8_t kAttributesChanged = 8;  // extended attributes, access control lists, chattr(1) flags

struct FileChange {
  ChangeKind kind = ChangeKind::kAdded;
  FileType type_before = FileType::kNone;  // kNone: it was not there
  FileType type_now = FileType::kNone;
  uint8_t what = 0;
  uint64_t size_before = 0;  // bytes
  uint64_t size_now = 0;
  std::string path;      // absolute, any bytes but NUL; of what was removed, the old one
  std::string old_path;  // of what was renamed, and of what changed below a directory that was; else empty
  friend bool operator==(const FileChange&, const FileChange&) = default;
};

struct Report {
  std::array<uint64_t, kChangeKinds> counts{};  // by kind, of all changes
  std::vector<FileChange> changes;              // the first ones by path
  uint64_t count(ChangeKind kind) const { return counts[static_cast<size_t>(kind)]; }
  uint64_t total() const;
  friend bool operator==(const Report&, const Report&) = default;
};

// Of an error the code and the message, cut at 4 KiB, what is not printable ASCII in it replaced by '?'.
std::vector<std::byte> encode(const Result<Report>& report);
// The error that was encoded, or kInternal if the bytes are nothing that encode() makes.
Result<Report> decode(std::span<const std::byte> bytes);

}  // namespace stasis::files
