// An ext2, ext3 or ext4 file system on a disk image, for reading, through libext2fs. Opening it replays its journal
// (journal.h) over the image, in memory. Everything on the disk is the guest's: what is wrong with it is kDataLoss, too
// much of it kResourceExhausted, and the caller is confined (base/confine.h) for what libext2fs itself would miss. One
// thread at a time.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "files/disk_image.h"

namespace stasis::files {

inline constexpr size_t kMaxDirectoryEntries = size_t{1} << 20;
inline constexpr size_t kMaxPieces = size_t{1} << 20;  // of one file's content
inline constexpr uint32_t kRootInode = 2;

struct Inode {
  uint32_t number = 0;
  uint32_t generation = 0;
  uint16_t mode = 0;  // type and permissions, as in stat(2)
  uint32_t uid = 0;
  uint32_t gid = 0;
  uint64_t size = 0;     // bytes
  uint64_t created = 0;  // as it stands in the inode; 0 where inodes are too small to say
  uint32_t flags = 0;    // those that chattr(1) sets
  std::vector<std::byte> raw;

  bool is_directory() const;
};

struct DirectoryEntry {
  std::string name;  // any bytes but '/' and NUL
  uint32_t inode = 0;
};

// Part of a file's content, in the file's order. What no piece covers is zeros.
struct Piece {
  uint64_t offset = 0;       // in the file, bytes
  uint64_t length = 0;       // bytes
  uint64_t disk_offset = 0;  // bytes
};

struct Attribute {
  std::string name;
  std::string value;
  friend auto operator<=>(const Attribute&, const Attribute&) = default;
};

class ExtFileSystem {
 public:
  // kFailedPrecondition if the disk holds no such file system. `image` outlives it.
  static Result<std::unique_ptr<ExtFileSystem>> open(DiskImage& image);
  ~ExtFileSystem();
  ExtFileSystem(const ExtFileSystem&) = delete;
  ExtFileSystem& operator=(const ExtFileSystem&) = delete;

  DiskImage& image();
  Result<Inode> inode(uint32_t number);
  // Sorted by name, without "." and "..".
  Result<std::vector<DirectoryEntry>> list(uint32_t directory);
  // The content of a file or symbolic link that is kept in the inode itself; nothing if it has blocks for it.
  Result<std::optional<std::vector<std::byte>>> content_in_inode(const Inode& inode);
  // Where the content lies on the disk: sorted, without overlap, within the disk. Pieces may reach behind the end of
  // the file.
  Result<std::vector<Piece>> pieces(const Inode& inode);
  // Extended attributes, access control lists among them, sorted.
  Result<std::vector<Attribute>> attributes(const Inode& inode);

 private:
  struct State;
  explicit ExtFileSystem(std::unique_ptr<State> state);
  Status replay_journal();
  std::unique_ptr<State> state_;
};

}  // namespace stasis::files
