#include "base/file_system.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <memory>

#include "base/unmapping_file_system.h"

namespace stasis {
namespace {

std::string quoted(std::string_view verb, const Path& path) { return std::string(verb) + " " + path.string(); }

bool is_in_memory(int fd) {
  struct statfs info {};
  return ::fstatfs(fd, &info) == 0 && info.f_type == TMPFS_MAGIC;
}

class RealFileSystem : public FileSystem {
 public:
  Result<UniqueFd> open_read(const Path& path) override { return open(path, O_RDONLY, "open"); }
  Result<UniqueFd> create(const Path& path) override { return open(path, O_RDWR | O_CREAT | O_EXCL, "create"); }
  Result<UniqueFd> open_write(const Path& path) override { return open(path, O_RDWR, "open"); }

  Result<size_t> read_at(int fd, uint64_t offset, std::span<std::byte> out) override {
    size_t done = 0;
    while (done < out.size()) {
      const ssize_t n = ::pread(fd, out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return fail_errno(errno, "read");
      if (n == 0) break;
      done += static_cast<size_t>(n);
    }
    return done;
  }

  Result<size_t> read_now(int fd, uint64_t offset, std::span<std::byte> out) override {
    size_t done = 0;
    while (done < out.size()) {
      const iovec rest{out.data() + done, out.size() - done};
      const ssize_t n = ::preadv2(fd, &rest, 1, static_cast<off_t>(offset + done), RWF_NOWAIT);
      if (n < 0 && errno == EINTR) continue;
      // tmpfs does not know the flag, and never waits.
      if (n < 0 && errno == EOPNOTSUPP && is_in_memory(fd)) return read_at(fd, offset, out);
      if (n < 0 && errno == EOPNOTSUPP) return fail(Code::kUnimplemented, "read without waiting");
      if (n < 0 && errno == EAGAIN) return fail(Code::kUnavailable, "not in memory");
      if (n < 0) return fail_errno(errno, "read");
      if (n == 0) break;
      done += static_cast<size_t>(n);
    }
    return done;
  }

  Result<FileMapping> map(int fd, uint64_t length) override { return FileMapping::map(fd, length); }

  Status write_at(int fd, uint64_t offset, std::span<const std::byte> data) override {
    size_t done = 0;
    while (done < data.size()) {
      const ssize_t n = ::pwrite(fd, data.data() + done, data.size() - done, static_cast<off_t>(offset + done));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return fail_errno(errno, "write");
      done += static_cast<size_t>(n);
    }
    return {};
  }

  Status truncate(int fd, uint64_t size) override {
    if (::ftruncate(fd, static_cast<off_t>(size)) != 0) return fail_errno(errno, "set file size");
    return {};
  }

  Status punch_hole(int fd, Range range) override {
    const int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    if (::fallocate(fd, mode, static_cast<off_t>(range.offset), static_cast<off_t>(range.length)) != 0) {
      return fail_errno(errno, "punch hole");
    }
    return {};
  }

  Result<std::vector<Range>> data_ranges(int fd) override {
    std::vector<Range> ranges;
    off_t position = 0;
    for (;;) {
      const off_t data = ::lseek(fd, position, SEEK_DATA);
      if (data < 0 && errno == ENXIO) return ranges;
      if (data < 0) return fail_errno(errno, "seek data");
      const off_t hole = ::lseek(fd, data, SEEK_HOLE);
      if (hole < 0) return fail_errno(errno, "seek hole");
      ranges.push_back({static_cast<uint64_t>(data), static_cast<uint64_t>(hole - data)});
      position = hole;
    }
  }

  uint64_t resident_pages(const FileMapping& mapping, Range range) override { return mapping.resident_pages(range); }

  bool is_hole(int fd, Range range) override {
    const off_t data = ::lseek(fd, static_cast<off_t>(range.offset), SEEK_DATA);
    return data < 0 ? errno == ENXIO : static_cast<uint64_t>(data) >= range.end();
  }

  Status sync(int fd) override {
    if (::fsync(fd) != 0) return fail_errno(errno, "sync file");
    return {};
  }

  Status set_mode(int fd, unsigned mode) override {
    if (::fchmod(fd, mode) != 0) return fail_errno(errno, "set file mode");
    return {};
  }

  Status sync_directory(const Path& path) override {
    STASIS_ASSIGN(const UniqueFd fd, open(path, O_RDONLY | O_DIRECTORY, "open directory"));
    if (::fsync(fd.get()) != 0) return fail_errno(errno, quoted("sync directory", path));
    return {};
  }

  Status make_directory(const Path& path) override {
    if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return fail_errno(errno, quoted("make directory", path));
    return {};
  }

  Status rename(const Path& from, const Path& to) override {
    if (::rename(from.c_str(), to.c_str()) != 0) {
      return fail_errno(errno, "rename " + from.string() + " to " + to.string());
    }
    return {};
  }

  Status remove(const Path& path) override {
    if (::unlink(path.c_str()) != 0) return fail_errno(errno, quoted("remove", path));
    return {};
  }

  Status remove_directory(const Path& path) override {
    if (::rmdir(path.c_str()) != 0) return fail_errno(errno, quoted("remove directory", path));
    return {};
  }

  Result<std::vector<std::string>> list(const Path& directory) override {
    const std::unique_ptr<DIR, int (*)(DIR*)> dir(::opendir(directory.c_str()), ::closedir);
    if (!dir) return fail_errno(errno, quoted("list directory", directory));
    std::vector<std::string> names;
    for (;;) {
      errno = 0;
      const dirent* entry = ::readdir(dir.get());
      if (entry == nullptr && errno != 0) return fail_errno(errno, quoted("list directory", directory));
      if (entry == nullptr) break;
      const std::string_view name = entry->d_name;
      if (name != "." && name != "..") names.emplace_back(name);
    }
    std::sort(names.begin(), names.end());
    return names;
  }

  Result<FileInfo> info(const Path& path) override {
    struct stat st {};
    if (::lstat(path.c_str(), &st) != 0) return fail_errno(errno, quoted("look at", path));
    FileInfo info;
    info.size = static_cast<uint64_t>(st.st_size);
    info.stored_bytes = static_cast<uint64_t>(st.st_blocks) * 512;
    info.modified_unix_ns = st.st_mtim.tv_sec * 1'000'000'000LL + st.st_mtim.tv_nsec;
    info.is_directory = S_ISDIR(st.st_mode);
    return info;
  }

 private:
  static Result<UniqueFd> open(const Path& path, int flags, std::string_view verb) {
    for (;;) {
      UniqueFd fd(::open(path.c_str(), flags | O_CLOEXEC, 0600));
      if (fd) return fd;
      if (errno != EINTR) return fail_errno(errno, quoted(verb, path));
    }
  }
};

class UnmappingFileSystem final : public RealFileSystem {
 public:
  Result<FileMapping> map(int fd, uint64_t length) override {
    return FileSystem::map(fd, length);  // NOLINT(bugprone-parent-virtual-call): what maps nothing is the seam itself
  }
};

}  // namespace

FileSystem& real_file_system() {
  static RealFileSystem instance;
  return instance;
}

FileSystem& unmapping_file_system() {
  static UnmappingFileSystem instance;
  return instance;
}

Result<std::vector<std::byte>> read_file(FileSystem& fs, const Path& path, uint64_t max_bytes) {
  // A guess: the file may be replaced before it is opened, and only its own end is the end.
  STASIS_ASSIGN(const FileInfo info, fs.info(path));
  STASIS_ASSIGN(const UniqueFd fd, fs.open_read(path));
  std::vector<std::byte> content(std::min(info.size, max_bytes) + 1);
  size_t length = 0;
  for (;;) {
    STASIS_ASSIGN(const size_t n, fs.read_at(fd.get(), length, std::span(content).subspan(length)));
    length += n;
    if (length > max_bytes) {
      return fail(Code::kDataLoss,
                  path.string() + " has more bytes than its limit of " + std::to_string(max_bytes) + " allows");
    }
    if (length < content.size()) break;
    content.resize(std::min<uint64_t>(2 * content.size(), max_bytes + 1));
  }
  content.resize(length);
  return content;
}

namespace {

Status put_in_place(FileSystem& fs, const Path& path, std::span<const std::byte> content, bool durably) {
  const Path temporary = path.string() + ".tmp";
  auto write = [&]() -> Status {
    if (Status removed = fs.remove(temporary); !removed && removed.error().code != Code::kNotFound) return removed;
    STASIS_ASSIGN(const UniqueFd fd, fs.create(temporary));
    STASIS_TRY_CONTEXT(fs.write_at(fd.get(), 0, content), temporary.string());
    if (durably) STASIS_TRY_CONTEXT(fs.sync(fd.get()), temporary.string());
    STASIS_TRY(fs.rename(temporary, path));
    return durably ? fs.sync_directory(path.parent_path()) : Status{};
  };
  Status status = write();
  if (!status) (void)fs.remove(temporary);
  return status;
}

}  // namespace

Status publish_file(FileSystem& fs, const Path& path, std::span<const std::byte> content) {
  return put_in_place(fs, path, content, true);
}

Status publish_file(FileSystem& fs, const Path& path, std::string_view content) {
  return publish_file(fs, path, std::as_bytes(std::span(content)));
}

Status replace_file(FileSystem& fs, const Path& path, std::span<const std::byte> content) {
  return put_in_place(fs, path, content, false);
}

Status replace_file(FileSystem& fs, const Path& path, std::string_view content) {
  return replace_file(fs, path, std::as_bytes(std::span(content)));
}

Status remove_tree(FileSystem& fs, const Path& directory) {
  auto names = fs.list(directory);
  if (!names && names.error().code == Code::kNotFound) return {};
  if (!names) return fail(std::move(names).error());
  for (const std::string& name : *names) {
    const Path path = directory / name;
    STASIS_ASSIGN(const FileInfo info, fs.info(path));
    STASIS_TRY(info.is_directory ? remove_tree(fs, path) : fs.remove(path));
  }
  return fs.remove_directory(directory);
}

bool exists(FileSystem& fs, const Path& path) { return fs.info(path).has_value(); }

}  // namespace stasis
