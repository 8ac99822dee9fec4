#include "disk/fuse_file_system.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>
#include <string_view>

namespace stasis::disk {
namespace {

constexpr fuse_ino_t kRoot = FUSE_ROOT_ID;
constexpr fuse_ino_t kFile = 2;
constexpr double kForever = 86400;       // seconds: nothing here changes
constexpr unsigned kMaxBackground = 64;  // asynchronous requests that the kernel keeps in flight
constexpr size_t kMaxRead = size_t{1} << 20;

}  // namespace

struct FuseFileSystem::Handlers {
  static FuseFileSystem& of(fuse_req_t request) { return *static_cast<FuseFileSystem*>(fuse_req_userdata(request)); }

  static void init(void*, fuse_conn_info* connection) {
    // Splicing costs two pipes a thread and saves nothing here: data goes to a file from the buffer it arrived in.
    connection->want &= ~static_cast<unsigned>(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE);
    connection->max_background = kMaxBackground;
    connection->congestion_threshold = kMaxBackground * 3 / 4;
  }

  static void lookup(fuse_req_t request, fuse_ino_t parent, const char* name) {
    if (parent != kRoot || std::string_view(name) != kFileName) {
      fuse_reply_err(request, ENOENT);
      return;
    }
    fuse_entry_param entry{};
    entry.ino = kFile;
    entry.attr = of(request).attributes(kFile);
    entry.attr_timeout = kForever;
    entry.entry_timeout = kForever;
    fuse_reply_entry(request, &entry);
  }

  static void getattr(fuse_req_t request, fuse_ino_t inode, fuse_file_info*) {
    const struct stat attributes = of(request).attributes(inode);
    fuse_reply_attr(request, &attributes, kForever);
  }

  static void readdir(fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset, fuse_file_info*) {
    if (inode != kRoot) {
      fuse_reply_err(request, ENOTDIR);
      return;
    }
    struct Entry {
      const char* name;
      fuse_ino_t inode;
    };
    constexpr Entry kEntries[] = {{".", kRoot}, {"..", kRoot}, {kFileName, kFile}};
    char buffer[512];
    size_t used = 0;
    for (auto i = static_cast<size_t>(offset); i < std::size(kEntries); ++i) {
      const struct stat attributes = of(request).attributes(kEntries[i].inode);
      const size_t room = std::min(size, sizeof buffer) - used;
      const size_t needed =
          fuse_add_direntry(request, buffer + used, room, kEntries[i].name, &attributes, static_cast<off_t>(i + 1));
      if (needed > room) break;
      used += needed;
    }
    fuse_reply_buf(request, buffer, used);
  }

  static void open(fuse_req_t request, fuse_ino_t inode, fuse_file_info* file) {
    if (inode != kFile) {
      fuse_reply_err(request, EISDIR);
      return;
    }
    file->direct_io = 1;
    fuse_reply_open(request, file);
  }

  static void read(fuse_req_t request, fuse_ino_t, size_t size, off_t offset, fuse_file_info*) {
    FuseFileSystem& self = of(request);
    const uint64_t from = std::min(static_cast<uint64_t>(offset), self.disk().size());
    const size_t length = std::min({size, kMaxRead, static_cast<size_t>(self.disk().size() - from)});
    // One buffer a thread, for its life: a fresh MiB for each request would be mapped and cleared each time.
    static thread_local std::vector<std::byte> buffer;
    if (buffer.size() < length) buffer.resize(length);
    if (Status status = self.disk().read(from, std::span(buffer).first(length)); !status) {
      self.reply(request, status);
      return;
    }
    fuse_reply_buf(request, reinterpret_cast<const char*>(buffer.data()), length);
  }

  static void write(fuse_req_t request, fuse_ino_t, const char* data, size_t size, off_t offset, fuse_file_info*) {
    FuseFileSystem& self = of(request);
    const Status status = self.disk().write(static_cast<uint64_t>(offset), std::as_bytes(std::span(data, size)));
    if (!status) {
      self.reply(request, status);
      return;
    }
    fuse_reply_write(request, size);
  }

  static void fallocate(fuse_req_t request, fuse_ino_t, int mode, off_t offset, off_t length, fuse_file_info*) {
    FuseFileSystem& self = of(request);
    const int kind = mode & ~FALLOC_FL_KEEP_SIZE;
    if (kind != FALLOC_FL_PUNCH_HOLE && kind != FALLOC_FL_ZERO_RANGE) {
      fuse_reply_err(request, EOPNOTSUPP);
      return;
    }
    const uint64_t size = self.disk().size();
    const uint64_t from = std::min(static_cast<uint64_t>(offset), size);
    const bool grows = static_cast<uint64_t>(length) > size - from && (mode & FALLOC_FL_KEEP_SIZE) == 0;
    if (grows) {
      fuse_reply_err(request, EFBIG);
      return;
    }
    self.reply(request, self.disk().discard(from, std::min(static_cast<uint64_t>(length), size - from)));
  }
};

const fuse_lowlevel_ops& FuseFileSystem::operations() {
  static const fuse_lowlevel_ops table = [] {
    fuse_lowlevel_ops ops{};
    ops.init = Handlers::init;
    ops.lookup = Handlers::lookup;
    ops.getattr = Handlers::getattr;
    ops.readdir = Handlers::readdir;
    ops.open = Handlers::open;
    ops.read = Handlers::read;
    ops.write = Handlers::write;
    ops.fallocate = Handlers::fallocate;
    // flush and fsync stay out: the answer ENOSYS tells the kernel that they always succeed, and it does not ask again.
    // There is nothing to do for them (durability is the snapshot's), a guest's barriers become free, and a process
    // that ends with the file open never waits for an answer.
    return ops;
  }();
  return table;
}

std::optional<Error> FuseFileSystem::failure() const {
  const std::lock_guard lock(mutex_);
  return failure_;
}

void FuseFileSystem::reply(fuse_req_t request, const Status& status) {
  fuse_reply_err(request, status ? 0 : error_number(status.error()));
}

// A full disk and a wrong offset are the guest's to handle; anything else is a failure of the host.
int FuseFileSystem::error_number(const Error& error) {
  if (error.code == Code::kResourceExhausted) return ENOSPC;
  if (error.code == Code::kOutOfRange) return EFBIG;
  {
    const std::lock_guard lock(mutex_);
    if (!failure_) failure_ = error;
  }
  failed_.set();
  return EIO;
}

struct stat FuseFileSystem::attributes(fuse_ino_t inode) const {
  struct stat result {};
  result.st_ino = inode;
  result.st_blksize = static_cast<blksize_t>(snapshot::kBlockSize);
  if (inode == kRoot) {
    result.st_mode = S_IFDIR | 0700;
    result.st_nlink = 2;
    return result;
  }
  result.st_mode = S_IFREG | 0600;
  result.st_nlink = 1;
  result.st_size = static_cast<off_t>(disk().size());
  result.st_blocks = static_cast<blkcnt_t>(disk().stats().blocks_written * (snapshot::kBlockSize / 512));
  return result;
}

}  // namespace stasis::disk
