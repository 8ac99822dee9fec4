#include "files/ext_file_system.h"

#include <sys/stat.h>

#include <algorithm>
#include <cstring>

#include "files/ext_io.h"

namespace stasis::files {
namespace {

constexpr uint32_t kVisibleFlags = EXT2_SECRM_FL | EXT2_UNRM_FL | EXT2_SYNC_FL | EXT2_IMMUTABLE_FL | EXT2_APPEND_FL |
                                   EXT2_NODUMP_FL | EXT2_NOATIME_FL | EXT3_JOURNAL_DATA_FL | EXT2_NOTAIL_FL |
                                   EXT2_DIRSYNC_FL | EXT2_TOPDIR_FL;
constexpr size_t kMaxContentInInode = 64 * 1024;  // one block, in front of and behind what libext2fs says

ext2_inode_large* large(const Inode& inode) {
  // libext2fs only reads it, and takes no const pointer.
  return const_cast<ext2_inode_large*>(reinterpret_cast<const ext2_inode_large*>(inode.raw.data()));
}

ext2_inode* small(const Inode& inode) { return reinterpret_cast<ext2_inode*>(large(inode)); }

tl::unexpected<Error> damaged(uint32_t inode, std::string_view what) {
  return fail(Code::kDataLoss, "its file system is damaged: inode " + std::to_string(inode) + ": " + std::string(what));
}

uint64_t creation_time(const Inode& inode) {
  const auto* fields = large(inode);
  if (inode.raw.size() < offsetof(ext2_inode_large, i_crtime_extra) + sizeof(fields->i_crtime_extra) ||
      fields->i_extra_isize <
          offsetof(ext2_inode_large, i_crtime_extra) + sizeof(fields->i_crtime_extra) - EXT2_GOOD_OLD_INODE_SIZE) {
    return 0;
  }
  return uint64_t{fields->i_crtime_extra} << 32 | fields->i_crtime;
}

struct Listing {
  std::vector<DirectoryEntry> entries;
  Status status;
};

int add_entry(ext2_ino_t directory, int, ext2_dir_entry* entry, int, int, char*, void* context) {
  auto& listing = *static_cast<Listing*>(context);
  const auto length = static_cast<size_t>(ext2fs_dirent_name_len(entry));
  const std::string_view name(entry->name, length);
  if (name == "." || name == "..") return 0;
  if (name.empty() || name.find('/') != name.npos || name.find('\0') != name.npos) {
    listing.status = damaged(directory, "a name in this directory is none");
    return DIRENT_ABORT;
  }
  if (listing.entries.size() == kMaxDirectoryEntries) {
    listing.status = fail(Code::kResourceExhausted, "a directory has more than 1,048,576 entries");
    return DIRENT_ABORT;
  }
  listing.entries.push_back({std::string(name), entry->inode});
  return 0;
}

// Collects where a file's blocks lie.
struct Mapping {
  uint32_t inode = 0;
  uint64_t block_size = 0;
  uint64_t disk_blocks = 0;
  std::vector<Piece> pieces;
  Status status;

  bool add(uint64_t logical, uint64_t physical, uint64_t count) {
    const uint64_t offset = logical * block_size;
    const bool wrong = physical >= disk_blocks || count > disk_blocks - physical || logical > uint64_t{UINT32_MAX} ||
                       (!pieces.empty() && offset < pieces.back().offset + pieces.back().length);
    if (wrong) status = damaged(inode, "its blocks are not in order or not on the disk");
    if (!status) return false;
    const Piece piece{offset, count * block_size, physical * block_size};
    if (!pieces.empty() && continues(pieces.back(), piece)) {
      pieces.back().length += piece.length;
    } else {
      pieces.push_back(piece);
    }
    if (pieces.size() > kMaxPieces) status = fail(Code::kResourceExhausted, "a file has more than 1,048,576 pieces");
    return status.has_value();
  }
  static bool continues(const Piece& last, const Piece& next) {
    return last.offset + last.length == next.offset && last.disk_offset + last.length == next.disk_offset;
  }
};

int add_block(ext2_filsys, blk64_t* block, e2_blkcnt_t logical, blk64_t, int, void* context) {
  return static_cast<Mapping*>(context)->add(static_cast<uint64_t>(logical), *block, 1) ? 0 : BLOCK_ABORT;
}

// Preallocated extents that were never written are zeros.
errcode_t walk_extents(ext2_filsys fs, const Inode& inode, Mapping& mapping) {
  ext2_extent_handle_t handle = nullptr;
  errcode_t code = ext2fs_extent_open2(fs, inode.number, small(inode), &handle);
  if (code != 0) return code;
  ext2fs_extent extent{};
  for (code = ext2fs_extent_get(handle, EXT2_EXTENT_ROOT, &extent); code == 0;
       code = ext2fs_extent_get(handle, EXT2_EXTENT_NEXT, &extent)) {
    const bool data =
        (extent.e_flags & EXT2_EXTENT_FLAGS_LEAF) != 0 && (extent.e_flags & EXT2_EXTENT_FLAGS_UNINIT) == 0;
    if (data && !mapping.add(extent.e_lblk, extent.e_pblk, extent.e_len)) break;
  }
  ext2fs_extent_free(handle);
  return code == EXT2_ET_EXTENT_NO_NEXT || code == EXT2_ET_NO_CURRENT_NODE ? 0 : code;
}

int add_attribute(char* name, char* value, size_t length, void* context) {
  if (std::strcmp(name, "system.data") == 0) return 0;  // content that is kept in the inode
  static_cast<std::vector<Attribute>*>(context)->push_back({name, std::string(value, length)});
  return 0;
}

}  // namespace

bool Inode::is_directory() const { return S_ISDIR(mode); }

struct ExtFileSystem::State {
  explicit State(DiskImage& image) : channel(image) {}
  ~State() { close(); }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  Status open(int flags) {
    close();
    const errcode_t code = channel.open(EXT2_FLAG_64BITS | flags, &fs);
    if (code == 0) return {};
    close();  // it may leave something to look at
    if (code == EXT2_ET_BAD_MAGIC) {
      return fail(Code::kFailedPrecondition, "it holds no ext2, ext3 or ext4 file system");
    }
    return fail(channel.error(code, "open its file system"));
  }
  void close() {
    if (fs != nullptr) ext2fs_free(fs);
    fs = nullptr;
  }
  Status check(errcode_t code, uint32_t inode, std::string_view what) {
    if (code == 0) return {};
    return fail(channel.error(code, "inode " + std::to_string(inode) + ": " + std::string(what)));
  }

  ExtChannel channel;
  ext2_filsys fs = nullptr;
};

ExtFileSystem::ExtFileSystem(std::unique_ptr<State> state) : state_(std::move(state)) {}
ExtFileSystem::~ExtFileSystem() = default;

DiskImage& ExtFileSystem::image() { return state_->channel.image(); }

// Until its journal is replayed, the checksums of what it is about to replace may be wrong.
Result<std::unique_ptr<ExtFileSystem>> ExtFileSystem::open(DiskImage& image) {
  std::unique_ptr<ExtFileSystem> file_system(new ExtFileSystem(std::make_unique<State>(image)));
  STASIS_TRY(file_system->state_->open(EXT2_FLAG_IGNORE_CSUM_ERRORS));
  STASIS_TRY(file_system->replay_journal());
  STASIS_TRY(file_system->state_->open(0));
  return file_system;
}

Status ExtFileSystem::replay_journal() {
  const ext2_super_block& super = *state_->fs->super;
  if (!ext2fs_has_feature_journal_needs_recovery(state_->fs->super)) return {};
  if (super.s_journal_inum == 0) return fail(Code::kUnimplemented, "its journal is on another device");
  STASIS_ASSIGN(const Inode journal, inode(super.s_journal_inum));
  STASIS_ASSIGN(const std::vector<Piece> where, pieces(journal));
  const uint32_t block_size = state_->fs->blocksize;
  const auto offset_of = [&](uint64_t block) -> Result<uint64_t> {
    const uint64_t offset = block * block_size;
    const auto next = std::upper_bound(where.begin(), where.end(), offset,
                                       [](uint64_t at, const Piece& piece) { return at < piece.offset; });
    if (next == where.begin() || offset - (next - 1)->offset >= (next - 1)->length) {
      return fail(Code::kDataLoss, "its journal is damaged: a block of it is missing");
    }
    return (next - 1)->disk_offset + (offset - (next - 1)->offset);
  };
  const JournalSource source{block_size, journal.size / block_size,
                             [&](uint64_t block, std::span<std::byte> out) -> Status {
                               STASIS_ASSIGN(const uint64_t offset, offset_of(block));
                               return image().read(offset, out);
                             }};
  STASIS_ASSIGN(const Replay replay, read_journal(source, ext2fs_blocks_count(state_->fs->super)));
  std::map<uint64_t, DiskImage::Moved> moved;
  for (const auto& [block, replayed] : replay) {
    STASIS_ASSIGN(const uint64_t offset, offset_of(replayed.journal_block));
    moved.emplace_hint(moved.end(), block, DiskImage::Moved{offset, replayed.escaped});
  }
  image().replay(block_size, std::move(moved));
  return {};
}

Result<Inode> ExtFileSystem::inode(uint32_t number) {
  Inode inode;
  inode.number = number;
  inode.raw.resize(std::max<size_t>(sizeof(ext2_inode_large), EXT2_INODE_SIZE(state_->fs->super)));
  STASIS_TRY(state_->check(ext2fs_read_inode_full(state_->fs, number, small(inode), static_cast<int>(inode.raw.size())),
                           number, "read it"));
  const ext2_inode& fields = *small(inode);
  inode.generation = fields.i_generation;
  inode.mode = fields.i_mode;
  inode.uid = inode_uid(fields);
  inode.gid = inode_gid(fields);
  inode.size = EXT2_I_SIZE(&fields);
  inode.created = creation_time(inode);
  inode.flags = fields.i_flags & kVisibleFlags;
  return inode;
}

Result<std::vector<DirectoryEntry>> ExtFileSystem::list(uint32_t directory) {
  Listing listing;
  const errcode_t code = ext2fs_dir_iterate2(state_->fs, directory, 0, nullptr, add_entry, &listing);
  STASIS_TRY(listing.status);
  STASIS_TRY(state_->check(code, directory, "list this directory"));
  std::sort(listing.entries.begin(), listing.entries.end(),
            [](const DirectoryEntry& a, const DirectoryEntry& b) { return a.name < b.name; });
  const auto twice =
      std::adjacent_find(listing.entries.begin(), listing.entries.end(),
                         [](const DirectoryEntry& a, const DirectoryEntry& b) { return a.name == b.name; });
  if (twice != listing.entries.end()) return damaged(directory, "a name is twice in this directory");
  return std::move(listing.entries);
}

Result<std::optional<std::vector<std::byte>>> ExtFileSystem::content_in_inode(const Inode& inode) {
  std::vector<std::byte> content;
  if ((small(inode)->i_flags & EXT4_INLINE_DATA_FL) != 0) {
    size_t size = 0;
    STASIS_TRY(
        state_->check(ext2fs_inline_data_size(state_->fs, inode.number, &size), inode.number, "read its content"));
    if (size > kMaxContentInInode) return damaged(inode.number, "it is too small for its content");
    content.resize(size);
    STASIS_TRY(state_->check(ext2fs_inline_data_get(state_->fs, inode.number, small(inode), content.data(), &size),
                             inode.number, "read its content"));
  } else if (S_ISLNK(inode.mode) && ext2fs_is_fast_symlink(small(inode)) != 0) {
    const auto* text = reinterpret_cast<const std::byte*>(small(inode)->i_block);
    content.assign(text, text + std::min<uint64_t>(inode.size, sizeof(small(inode)->i_block)));
  } else {
    return std::nullopt;
  }
  if (inode.size > kMaxContentInInode) return damaged(inode.number, "it is too small for its content");
  content.resize(inode.size);
  return content;
}

Result<std::vector<Piece>> ExtFileSystem::pieces(const Inode& inode) {
  Mapping mapping{inode.number, state_->fs->blocksize, ext2fs_blocks_count(state_->fs->super), {}, {}};
  errcode_t code = 0;
  if ((small(inode)->i_flags & EXT4_EXTENTS_FL) != 0) {
    code = walk_extents(state_->fs, inode, mapping);
  } else if (ext2fs_inode_has_valid_blocks2(state_->fs, small(inode)) != 0) {
    code = ext2fs_block_iterate3(state_->fs, inode.number, BLOCK_FLAG_READ_ONLY | BLOCK_FLAG_DATA_ONLY, nullptr,
                                 add_block, &mapping);
  }
  STASIS_TRY(mapping.status);
  STASIS_TRY(state_->check(code, inode.number, "find its blocks"));
  return std::move(mapping.pieces);
}

Result<std::vector<Attribute>> ExtFileSystem::attributes(const Inode& inode) {
  std::vector<Attribute> attributes;
  ext2_xattr_handle* handle = nullptr;
  errcode_t code = ext2fs_xattrs_open(state_->fs, inode.number, &handle);
  if (code == EXT2_ET_MISSING_EA_FEATURE) return attributes;
  STASIS_TRY(state_->check(code, inode.number, "read its attributes"));
  unsigned int raw = XATTR_HANDLE_FLAG_RAW;
  code = ext2fs_xattrs_flags(handle, &raw, nullptr);
  if (code == 0) code = ext2fs_xattrs_read(handle);
  if (code == 0) code = ext2fs_xattrs_iterate(handle, add_attribute, &attributes);
  (void)ext2fs_xattrs_close(&handle);
  STASIS_TRY(state_->check(code, inode.number, "read its attributes"));
  std::sort(attributes.begin(), attributes.end());
  return attributes;
}

}  // namespace stasis::files
