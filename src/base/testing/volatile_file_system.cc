#include "base/testing/volatile_file_system.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <utility>

namespace stasis::testing {
namespace {

// The disk itself does not fail: what goes wrong here is a broken test.
template <typename T>
T must(Result<T> result) {
  if (!result) std::abort();
  return std::move(result).value();
}
void must(const Status& status) {
  if (!status) std::abort();
}

struct stat look_at(const Path& path) {
  struct stat st {};
  if (::lstat(path.c_str(), &st) != 0) std::abort();
  return st;
}

struct stat look_at(int fd) {
  struct stat st {};
  if (::fstat(fd, &st) != 0) std::abort();
  return st;
}

Content content_of(int fd) {
  Content content(static_cast<size_t>(look_at(fd).st_size));
  content.resize(must(real_file_system().read_at(fd, 0, content)));
  return content;
}

unsigned mode_of(const struct stat& st) { return st.st_mode & 07777U; }

// Writes a sparse file: sectors of zeros stay holes.
void make_file(const Path& path, const Content& content, unsigned mode) {
  FileSystem& fs = real_file_system();
  const UniqueFd fd = must(fs.create(path));
  must(fs.truncate(fd.get(), content.size()));
  for (size_t at = 0; at < content.size(); at += kSector) {
    const auto sector = std::span(content).subspan(at, std::min(kSector, content.size() - at));
    const bool zeros = std::all_of(sector.begin(), sector.end(), [](std::byte byte) { return byte == std::byte{0}; });
    if (!zeros) must(fs.write_at(fd.get(), at, sector));
  }
  must(fs.set_mode(fd.get(), mode));
}

}  // namespace

struct VolatileFileSystem::Cut {
  struct File {
    Content content;
    unsigned mode = 0;
  };
  NodePtr root;
  std::unordered_map<const Node*, File> live;  // what files with a name hold
};

struct VolatileFileSystem::Loss {
  const Cut& cut;
  uint64_t seed = 0;
  std::unordered_map<const Node*, Path> built;  // what has been made again, and where

  std::mt19937_64 chance(const Node& node) const { return std::mt19937_64(seed + node.number * 0x9e3779b97f4a7c15U); }
};

NodePtr VolatileFileSystem::new_node(bool is_directory) {
  auto node = std::make_shared<Node>();
  node->number = ++nodes_made_;
  node->is_directory = is_directory;
  return node;
}

VolatileFileSystem::VolatileFileSystem(Path root) : ForwardingFileSystem(real_file_system()), root_(std::move(root)) {
  nodes_[look_at(root_).st_ino] = new_node(true);
  for (const auto& found : std::filesystem::recursive_directory_iterator(root_)) {
    if (found.is_directory()) {
      directory(found.path());
    } else {
      const UniqueFd fd = must(inner_.open_read(found.path()));
      directory(found.path().parent_path())->synced_entries[found.path().filename()] = file(fd.get());
      must(sync(fd.get()));
    }
  }
}

bool VolatileFileSystem::tracks(const Path& path) const { return path.string().starts_with(root_.string() + "/"); }

NodePtr VolatileFileSystem::directory(const Path& path) {
  const uint64_t inode = look_at(path).st_ino;
  if (const auto known = nodes_.find(inode); known != nodes_.end()) return known->second;
  NodePtr node = new_node(true);
  nodes_[inode] = node;
  directory(path.parent_path())->synced_entries[path.filename()] = node;
  return node;
}

NodePtr VolatileFileSystem::file(int fd) {
  NodePtr& node = nodes_[look_at(fd).st_ino];
  if (!node) node = new_node(false);
  return node;
}

NodePtr VolatileFileSystem::entry(const Path& path) {
  const struct stat st = look_at(path);
  if (S_ISDIR(st.st_mode)) return directory(path);
  NodePtr& node = nodes_[st.st_ino];
  if (!node) node = new_node(false);
  return node;
}

void VolatileFileSystem::change_entry(const Path& path, NodePtr node) {
  if (tracks(path)) directory(path.parent_path())->unsynced_entries.emplace_back(path.filename(), std::move(node));
}

// The inode of `path` is about to lose its last name; its number may be given to another.
void VolatileFileSystem::forget(const Path& path) {
  struct stat st {};
  if (::lstat(path.c_str(), &st) == 0 && S_ISREG(st.st_mode) && st.st_nlink == 1) nodes_.erase(st.st_ino);
}

Result<UniqueFd> VolatileFileSystem::create(const Path& path) {
  const std::lock_guard lock(mutex_);
  auto fd = inner_.create(path);
  if (fd && tracks(path)) {
    const auto node = new_node(false);
    nodes_[look_at(fd->get()).st_ino] = node;
    change_entry(path, node);
  }
  return fd;
}

Status VolatileFileSystem::write_at(int fd, uint64_t offset, std::span<const std::byte> data) {
  const std::lock_guard lock(mutex_);
  Status written = inner_.write_at(fd, offset, data);
  if (written) file(fd)->unsynced.push_back({offset, Content(data.begin(), data.end()), std::nullopt});
  return written;
}

Status VolatileFileSystem::truncate(int fd, uint64_t size) {
  const std::lock_guard lock(mutex_);
  Status done = inner_.truncate(fd, size);
  if (done) file(fd)->unsynced.push_back({0, {}, size});
  return done;
}

Status VolatileFileSystem::punch_hole(int fd, Range range) {
  const std::lock_guard lock(mutex_);
  Status done = inner_.punch_hole(fd, range);
  const uint64_t end = std::min<uint64_t>(range.end(), static_cast<uint64_t>(look_at(fd).st_size));
  if (done && range.offset < end) {
    file(fd)->unsynced.push_back({range.offset, Content(end - range.offset), std::nullopt});
  }
  return done;
}

Status VolatileFileSystem::sync(int fd) {
  const std::lock_guard lock(mutex_);
  const NodePtr node = file(fd);
  if (std::exchange(sync_fails_, false)) {
    node->fail_sync();
    return fail_errno(EIO, "sync: the device has failed");
  }
  node->sync(content_of(fd));
  node->synced_mode = mode_of(look_at(fd));
  return {};
}

Status VolatileFileSystem::sync_directory(const Path& path) {
  const std::lock_guard lock(mutex_);
  if (!tracks(path) && path != root_) return {};
  STASIS_TRY(inner_.info(path));
  directory(path)->apply_entries();
  return {};
}

Status VolatileFileSystem::make_directory(const Path& path) {
  const std::lock_guard lock(mutex_);
  const bool there = exists(inner_, path);
  Status made = inner_.make_directory(path);
  if (made && !there && tracks(path)) {
    const NodePtr node = new_node(true);
    nodes_[look_at(path).st_ino] = node;
    change_entry(path, node);
  }
  return made;
}

Status VolatileFileSystem::rename(const Path& from, const Path& to) {
  const std::lock_guard lock(mutex_);
  if (!exists(inner_, from)) return inner_.rename(from, to);
  const NodePtr node = entry(from);
  if (exists(inner_, to)) forget(to);
  Status renamed = inner_.rename(from, to);
  if (renamed) {
    change_entry(to, node);
    change_entry(from, nullptr);
  }
  return renamed;
}

Status VolatileFileSystem::remove(const Path& path) {
  const std::lock_guard lock(mutex_);
  if (exists(inner_, path)) forget(path);
  Status removed = inner_.remove(path);
  if (removed) change_entry(path, nullptr);
  return removed;
}

Status VolatileFileSystem::remove_directory(const Path& path) {
  const std::lock_guard lock(mutex_);
  const bool known = exists(inner_, path);
  const uint64_t inode = known ? look_at(path).st_ino : 0;
  Status removed = inner_.remove_directory(path);
  if (removed) {
    nodes_.erase(inode);
    change_entry(path, nullptr);
  }
  return removed;
}

std::shared_ptr<const VolatileFileSystem::Cut> VolatileFileSystem::cut_power() const {
  auto cut = std::make_shared<Cut>();
  cut->root = nodes_.at(look_at(root_).st_ino);
  for (const auto& found : std::filesystem::recursive_directory_iterator(root_)) {
    if (!found.is_regular_file()) continue;
    const UniqueFd fd = must(inner_.open_read(found.path()));
    const struct stat st = look_at(fd.get());
    if (const auto node = nodes_.find(st.st_ino); node != nodes_.end()) {
      cut->live[node->second.get()] = {content_of(fd.get()), mode_of(st)};
    }
  }
  return cut;
}

void VolatileFileSystem::come_back(const Cut& cut, std::mt19937_64& random) {
  for (const auto& found : std::filesystem::directory_iterator(root_)) std::filesystem::remove_all(found.path());
  nodes_.clear();
  const NodePtr fresh = new_node(true);
  nodes_[look_at(root_).st_ino] = fresh;
  Loss loss{cut, random(), {}};
  restore_directory(*cut.root, fresh, root_, loss);
}

// Makes at `path` what is left of `old`. A node that has kept two names (half of a rename) keeps both if it is a file.
void VolatileFileSystem::restore_directory(const Node& old, const NodePtr& fresh, const Path& path, Loss& loss) {
  auto chance_of_names = loss.chance(old);
  for (const auto& [name, node] : entries_after_loss(old, chance_of_names)) {
    const Path at = path / name;
    const auto [first, is_new] = loss.built.emplace(node.get(), at);
    if (node->is_directory) {
      if (!is_new) continue;
      must(inner_.make_directory(at));
      const NodePtr made = directory(at);
      restore_directory(*node, made, at, loss);
    } else if (!is_new) {
      std::filesystem::create_hard_link(first->second, at);
      fresh->synced_entries[name] = entry(at);
    } else {
      auto chance = loss.chance(*node);
      const auto live = loss.cut.live.find(node.get());
      const bool named = live != loss.cut.live.end();
      const NodePtr made = new_node(false);
      made->synced = content_after_loss(*node, named ? std::optional(live->second.content) : std::nullopt, chance);
      made->synced_mode = named && chance() % 2 == 0 ? live->second.mode : node->synced_mode;
      make_file(at, made->synced, made->synced_mode);
      nodes_[look_at(at).st_ino] = made;
      fresh->synced_entries[name] = made;
    }
  }
}

}  // namespace stasis::testing
