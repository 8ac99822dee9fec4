#include "files/tree_diff.h"

#include <sys/stat.h>

#include <algorithm>
#include <optional>
#include <tuple>
#include <unordered_set>

#include "files/change_list.h"

namespace stasis::files {
namespace {

constexpr uint32_t kNone = UINT32_MAX;
constexpr uint16_t kPermissions = 07777;

FileType type_of(const Inode& inode) {
  switch (inode.mode & S_IFMT) {
    case S_IFREG:
      return FileType::kFile;
    case S_IFDIR:
      return FileType::kDirectory;
    case S_IFLNK:
      return FileType::kSymlink;
    case S_IFCHR:
      return FileType::kCharacterDevice;
    case S_IFBLK:
      return FileType::kBlockDevice;
    case S_IFIFO:
      return FileType::kFifo;
    case S_IFSOCK:
      return FileType::kSocket;
    default:
      return FileType::kUnknown;
  }
}

// Something that is in only one of the trees.
struct OneSided {
  std::string path;
  uint32_t parent = kNone;   // index, if that is only there too
  uint32_t partner = kNone;  // index on the other side: the same inode under another path
  uint32_t inode = 0;
  uint32_t generation = 0;
  uint64_t created = 0;
  uint64_t size = 0;
  FileType type = FileType::kNone;

  auto identity() const { return std::tie(inode, generation, created, type); }
  std::string_view name() const { return std::string_view(path).substr(path.rfind('/')); }
};

struct Side {
  ExtFileSystem& file_system;
  std::vector<OneSided> only_here = {};
  std::unordered_set<uint32_t> listed = {};

  // Each directory has one name, so whoever comes to one again would go round for ever.
  Result<std::vector<DirectoryEntry>> list(uint32_t directory) {
    if (!listed.insert(directory).second) {
      return fail(Code::kDataLoss,
                  "its file system is damaged: directory inode " + std::to_string(directory) + " has two names");
    }
    return file_system.list(directory);
  }
};

// A directory that is in both trees.
struct DirectoryPair {
  std::string path;
  uint32_t before = 0;
  uint32_t now = 0;
};

Result<std::string> path_in(const std::string& directory, const std::string& name) {
  std::string path = directory + "/" + name;
  if (path.size() > kMaxPath) return fail(Code::kResourceExhausted, "a path has more than 4,096 bytes");
  return path;
}

class TreeDiff {
 public:
  explicit TreeDiff(const Versions& versions) : versions_(versions), before_{versions.before}, now_{versions.now} {}

  Result<Report> run() {
    STASIS_ASSIGN(const Inode root_before, versions_.before.inode(kRootInode));
    STASIS_ASSIGN(const Inode root_now, versions_.now.inode(kRootInode));
    if (!root_before.is_directory() || !root_now.is_directory()) {
      return fail(Code::kDataLoss, "its file system is damaged: the root is no directory");
    }
    STASIS_TRY(compare("/", {}, root_before, root_now));
    pairs_.push_back({"", kRootInode, kRootInode});
    while (!pairs_.empty()) {
      const DirectoryPair pair = std::move(pairs_.back());
      pairs_.pop_back();
      STASIS_TRY(walk(pair));
    }
    for (Side* side : {&before_, &now_}) STASIS_TRY(walk_one_sided(*side));
    find_partners();
    for (const OneSided& gone : before_.only_here) {
      if (gone.partner == kNone) {
        list_.add({ChangeKind::kRemoved, gone.type, FileType::kNone, 0, gone.size, 0, gone.path, {}});
      }
    }
    for (const OneSided& come : now_.only_here) STASIS_TRY(tell_come(come));
    return std::move(list_).take();
  }

 private:
  Status walk(const DirectoryPair& pair) {
    STASIS_ASSIGN(const auto before, before_.list(pair.before));
    STASIS_ASSIGN(const auto now, now_.list(pair.now));
    size_t i = 0;
    size_t j = 0;
    while (i < before.size() || j < now.size()) {
      const int order = i == before.size() ? 1 : j == now.size() ? -1 : before[i].name.compare(now[j].name);
      if (order < 0) {
        STASIS_TRY(add_one_sided(before_, pair.path, kNone, before[i]));
      } else if (order > 0) {
        STASIS_TRY(add_one_sided(now_, pair.path, kNone, now[j]));
      } else {
        STASIS_TRY(walk_both(pair.path, before[i], now[j]));
      }
      i += order <= 0 ? 1 : 0;
      j += order >= 0 ? 1 : 0;
    }
    return {};
  }

  Status walk_both(const std::string& directory, const DirectoryEntry& entry_before, const DirectoryEntry& entry_now) {
    STASIS_ASSIGN(const std::string path, path_in(directory, entry_now.name));
    STASIS_ASSIGN(const Inode before, versions_.before.inode(entry_before.inode));
    STASIS_ASSIGN(const Inode now, versions_.now.inode(entry_now.inode));
    if (type_of(before) != type_of(now)) {
      list_.add({ChangeKind::kType, type_of(before), type_of(now), 0, before.size, now.size, path, {}});
      if (before.is_directory()) STASIS_TRY(add_children(before_, path, kNone, before.number));
      if (now.is_directory()) STASIS_TRY(add_children(now_, path, kNone, now.number));
      return {};
    }
    if (now.is_directory()) pairs_.push_back({path, before.number, now.number});
    return compare(path, {}, before, now);
  }

  Status add_one_sided(Side& side, const std::string& directory, uint32_t parent, const DirectoryEntry& entry) {
    STASIS_ASSIGN(std::string path, path_in(directory, entry.name));
    STASIS_ASSIGN(const Inode inode, side.file_system.inode(entry.inode));
    if (before_.only_here.size() + now_.only_here.size() == kMaxOneSided) {
      return fail(Code::kResourceExhausted, "more than 1,048,576 files were added or removed");
    }
    side.only_here.push_back(
        {std::move(path), parent, kNone, inode.number, inode.generation, inode.created, inode.size, type_of(inode)});
    return {};
  }

  Status add_children(Side& side, const std::string& path, uint32_t parent, uint32_t directory) {
    STASIS_ASSIGN(const auto entries, side.list(directory));
    for (const DirectoryEntry& entry : entries) STASIS_TRY(add_one_sided(side, path, parent, entry));
    return {};
  }

  // The list grows while it is walked.
  Status walk_one_sided(Side& side) {
    for (uint32_t i = 0; i < side.only_here.size(); ++i) {
      if (side.only_here[i].type != FileType::kDirectory) continue;
      const std::string path = side.only_here[i].path;
      STASIS_TRY(add_children(side, path, i, side.only_here[i].inode));
    }
    return {};
  }

  // A name each: of a file with several, the first old one and the first new one belong together.
  void find_partners() {
    const auto by_identity = [](const std::vector<OneSided>& list) {
      std::vector<uint32_t> order(list.size());
      for (uint32_t i = 0; i < order.size(); ++i) order[i] = i;
      std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
        return std::tuple(list[a].identity(), std::string_view(list[a].path)) <
               std::tuple(list[b].identity(), std::string_view(list[b].path));
      });
      return order;
    };
    auto& before = before_.only_here;
    auto& now = now_.only_here;
    const std::vector<uint32_t> olds = by_identity(before);
    const std::vector<uint32_t> news = by_identity(now);
    for (size_t i = 0, j = 0; i < olds.size() && j < news.size();) {
      OneSided& gone = before[olds[i]];
      OneSided& come = now[news[j]];
      if (gone.identity() == come.identity()) {
        gone.partner = news[j++];
        come.partner = olds[i++];
      } else if (gone.identity() < come.identity()) {
        ++i;
      } else {
        ++j;
      }
    }
  }

  Status tell_come(const OneSided& come) {
    if (come.partner == kNone) {
      list_.add({ChangeKind::kAdded, FileType::kNone, come.type, 0, 0, come.size, come.path, {}});
      return {};
    }
    const OneSided& gone = before_.only_here[come.partner];
    STASIS_ASSIGN(const Inode before, versions_.before.inode(gone.inode));
    STASIS_ASSIGN(const Inode now, versions_.now.inode(come.inode));
    return compare(come.path, gone.path, before, now, !moved_with_its_directory(gone, come));
  }

  bool moved_with_its_directory(const OneSided& gone, const OneSided& come) const {
    if (gone.parent == kNone || come.parent == kNone || gone.name() != come.name()) return false;
    return now_.only_here[come.parent].partner == gone.parent;
  }

  // Tells what differs between two versions of a file, if anything.
  Status compare(const std::string& path, const std::string& old_path, const Inode& before, const Inode& now,
                 bool renamed = false) {
    STASIS_ASSIGN(const uint8_t what, what_differs(before, now));
    if (what == 0 && !renamed) return {};
    const ChangeKind kind = renamed                         ? ChangeKind::kRenamed
                            : (what & kContentChanged) != 0 ? ChangeKind::kModified
                                                            : ChangeKind::kMetadata;
    list_.add({kind, type_of(before), type_of(now), what, before.size, now.size, path, old_path});
    return {};
  }

  Result<uint8_t> what_differs(const Inode& before, const Inode& now) const {
    uint8_t what = 0;
    STASIS_ASSIGN(const bool content, same_content(versions_, before, now));
    STASIS_ASSIGN(const bool attributes, same_attributes(versions_, before, now));
    if (!content) what |= kContentChanged;
    if ((before.mode & kPermissions) != (now.mode & kPermissions)) what |= kModeChanged;
    if (before.uid != now.uid || before.gid != now.gid) what |= kOwnerChanged;
    if (!attributes) what |= kAttributesChanged;
    return what;
  }

  const Versions& versions_;
  Side before_;
  Side now_;
  std::vector<DirectoryPair> pairs_;
  ChangeList list_;
};

Result<std::unique_ptr<ExtFileSystem>> open(DiskImage& image, std::string_view which) {
  auto file_system = ExtFileSystem::open(image);
  if (!file_system) return fail(std::move(file_system).error().with_context(which));
  return file_system;
}

}  // namespace

Result<Report> diff_trees(const Versions& versions) { return TreeDiff(versions).run(); }

Result<Report> diff_disks(const snapshot::AddressSpace& before, const snapshot::AddressSpace& now) {
  DiskImage image_before(before);
  DiskImage image_now(now);
  STASIS_ASSIGN(const auto file_system_before, open(image_before, "the first snapshot's disk"));
  STASIS_ASSIGN(const auto file_system_now, open(image_now, "the second snapshot's disk"));
  return diff_trees({*file_system_before, *file_system_now});
}

}  // namespace stasis::files
