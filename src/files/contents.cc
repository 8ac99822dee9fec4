#include "files/contents.h"

#include <sys/stat.h>

#include <algorithm>

#include "snapshot/ranges.h"

namespace stasis::files {
namespace {

using Bytes = std::vector<std::byte>;

// How a file goes on at some offset: on the disk, or as zeros.
struct Run {
  bool on_disk = false;
  uint64_t disk_offset = 0;
  uint64_t length = 0;  // bytes
};

// Goes through a file's pieces, from its beginning to its end.
class Runs {
 public:
  explicit Runs(std::vector<Piece> pieces) : pieces_(std::move(pieces)) {}

  // `offset` never goes back.
  Run at(uint64_t offset) {
    while (next_ < pieces_.size() && pieces_[next_].offset + pieces_[next_].length <= offset) ++next_;
    if (next_ == pieces_.size()) return {false, 0, UINT64_MAX};
    const Piece& piece = pieces_[next_];
    if (offset < piece.offset) return {false, 0, piece.offset - offset};
    return {true, piece.disk_offset + (offset - piece.offset), piece.length - (offset - piece.offset)};
  }

 private:
  std::vector<Piece> pieces_;
  size_t next_ = 0;
};

Result<bool> is_all_zero(DiskImage& image, uint64_t offset, uint64_t length) {
  std::array<std::byte, snapshot::kBlockSize> block;
  while (length > 0) {
    const auto piece = std::span(block).first(std::min<uint64_t>(length, block.size()));
    STASIS_TRY(image.read(offset, piece));
    if (!snapshot::is_zero(piece)) return false;
    offset += piece.size();
    length -= piece.size();
  }
  return true;
}

Result<bool> same_runs(const Versions& versions, const Run& before, const Run& now, uint64_t length) {
  if (before.on_disk && now.on_disk) {
    return same_bytes(versions.before.image(), before.disk_offset, versions.now.image(), now.disk_offset, length);
  }
  if (before.on_disk) return is_all_zero(versions.before.image(), before.disk_offset, length);
  if (now.on_disk) return is_all_zero(versions.now.image(), now.disk_offset, length);
  return true;
}

Result<bool> same_pieces(const Versions& versions, const Inode& before, const Inode& now) {
  STASIS_ASSIGN(auto pieces_before, versions.before.pieces(before));
  STASIS_ASSIGN(auto pieces_now, versions.now.pieces(now));
  Runs runs_before(std::move(pieces_before));
  Runs runs_now(std::move(pieces_now));
  for (uint64_t at = 0; at < now.size;) {
    const Run left = runs_before.at(at);
    const Run right = runs_now.at(at);
    const uint64_t length = std::min({left.length, right.length, now.size - at});
    STASIS_ASSIGN(const bool same, same_runs(versions, left, right, length));
    if (!same) return false;
    at += length;
  }
  return true;
}

// The whole of a file that is as small as one that fits into an inode.
Result<Bytes> read_all(ExtFileSystem& file_system, const Inode& inode) {
  STASIS_ASSIGN(auto pieces, file_system.pieces(inode));
  Runs runs(std::move(pieces));
  Bytes bytes(inode.size);
  for (uint64_t at = 0; at < bytes.size();) {
    const Run run = runs.at(at);
    const uint64_t length = std::min<uint64_t>(run.length, bytes.size() - at);
    if (run.on_disk) STASIS_TRY(file_system.image().read(run.disk_offset, std::span(bytes).subspan(at, length)));
    at += length;
  }
  return bytes;
}

bool is_device(const Inode& inode) { return S_ISCHR(inode.mode) || S_ISBLK(inode.mode); }

// The numbers of a device stand where others have the first of their blocks.
bool same_device(const Inode& before, const Inode& now) {
  constexpr size_t kBlocks = 40;
  return std::equal(before.raw.begin() + kBlocks, before.raw.begin() + kBlocks + 8, now.raw.begin() + kBlocks);
}

}  // namespace

Result<bool> same_content(const Versions& versions, const Inode& before, const Inode& now) {
  if (is_device(now)) return same_device(before, now);
  if (!S_ISREG(now.mode) && !S_ISLNK(now.mode)) return true;
  if (before.size != now.size) return false;
  STASIS_ASSIGN(auto bytes_before, versions.before.content_in_inode(before));
  STASIS_ASSIGN(auto bytes_now, versions.now.content_in_inode(now));
  if (!bytes_before && !bytes_now) return same_pieces(versions, before, now);
  if (!bytes_before) {
    STASIS_ASSIGN(bytes_before, read_all(versions.before, before));
  }
  if (!bytes_now) {
    STASIS_ASSIGN(bytes_now, read_all(versions.now, now));
  }
  return *bytes_before == *bytes_now;
}

Result<bool> same_attributes(const Versions& versions, const Inode& before, const Inode& now) {
  if (before.flags != now.flags) return false;
  STASIS_ASSIGN(const auto attributes_before, versions.before.attributes(before));
  STASIS_ASSIGN(const auto attributes_now, versions.now.attributes(now));
  return attributes_before == attributes_now;
}

}  // namespace stasis::files
