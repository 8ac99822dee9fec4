// The seam for files. Everything that is durable (layers, block maps, manifests, records) is written, renamed, synced
// and removed through a FileSystem, so that a test can replace it by one that fails the n-th call, forgets unsynced
// data or tears writes. `real_file_system()` is the one that talks to the kernel. All functions are thread-safe. Short
// reads and writes are retried inside; read_at returns fewer bytes than asked only at the end of the file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/file_mapping.h"
#include "base/range.h"
#include "base/result.h"

namespace stasis {

using Path = std::filesystem::path;

struct FileInfo {
  uint64_t size = 0;          // bytes
  uint64_t stored_bytes = 0;  // bytes allocated on the device (st_blocks * 512)
  int64_t modified_unix_ns = 0;
  bool is_directory = false;
};

class FileSystem {
 public:
  virtual ~FileSystem() = default;

  virtual Result<UniqueFd> open_read(const Path& path) = 0;
  // Creates a new file, mode 0600, for reading and writing; kAlreadyExists if there is one.
  virtual Result<UniqueFd> create(const Path& path) = 0;
  // Opens an existing file for reading and writing.
  virtual Result<UniqueFd> open_write(const Path& path) = 0;

  virtual Result<size_t> read_at(int fd, uint64_t offset, std::span<std::byte> out) = 0;
  // The same if no byte of it has to be waited for (it is in memory: in the page cache, or the file itself is).
  // kUnavailable if it is not, kUnimplemented if that cannot be told; what `out` then holds is not defined.
  virtual Result<size_t> read_now(int /*fd*/, uint64_t /*offset*/, std::span<std::byte> /*out*/) {
    return fail(Code::kUnimplemented, "this file system tells not what is in memory");
  }
  // The first `length` bytes of a file that does not change, for reading: for speed only, whoever cannot have it reads.
  // kUnimplemented unless the file system does it.
  virtual Result<FileMapping> map(int /*fd*/, uint64_t /*length*/) {
    return fail(Code::kUnimplemented, "this file system maps no files");
  }
  // FileMapping::resident_pages() of a file that map() has mapped; none unless the file system tells.
  virtual uint64_t resident_pages(const FileMapping& /*mapping*/, Range /*range*/) { return 0; }
  virtual Status write_at(int fd, uint64_t offset, std::span<const std::byte> data) = 0;
  virtual Status truncate(int fd, uint64_t size) = 0;
  virtual Status punch_hole(int fd, Range range) = 0;  // the range reads as zeros and is not allocated
  // The parts of [0, size) that hold data, in order (SEEK_DATA / SEEK_HOLE).
  virtual Result<std::vector<Range>> data_ranges(int fd) = 0;
  // Whether nothing is stored of a range, so that it reads as zeros. False too if that cannot be told.
  virtual bool is_hole(int /*fd*/, Range /*range*/) { return false; }
  virtual Status sync(int fd) = 0;
  virtual Status set_mode(int fd, unsigned mode) = 0;

  virtual Status sync_directory(const Path& path) = 0;
  virtual Status make_directory(const Path& path) = 0;  // mode 0700; success if it is there already
  virtual Status rename(const Path& from, const Path& to) = 0;
  virtual Status remove(const Path& path) = 0;                               // a file; kNotFound if there is none
  virtual Status remove_directory(const Path& path) = 0;                     // an empty directory
  virtual Result<std::vector<std::string>> list(const Path& directory) = 0;  // names, sorted, without . and ..
  virtual Result<FileInfo> info(const Path& path) = 0;                       // kNotFound if there is nothing
};

FileSystem& real_file_system();

// Reads a whole file of at most `max_bytes`; kDataLoss if it is longer.
Result<std::vector<std::byte>> read_file(FileSystem& fs, const Path& path, uint64_t max_bytes);

// The publish rule: writes `path`.tmp in the same directory, syncs it, renames it over `path`, syncs the directory.
// After a crash there is the old content or the new one, whole. On failure the temporary file is removed.
Status publish_file(FileSystem& fs, const Path& path, std::span<const std::byte> content);
Status publish_file(FileSystem& fs, const Path& path, std::string_view content);

// The same without a sync, for what is of use only to processes of this boot: whoever reads finds the old content or
// the new one, whole, whichever process is killed; after the host itself went down it may be either, or torn. A synced
// one costs 2 to 12 ms on an ext4 disk, and a restore writes four.
Status replace_file(FileSystem& fs, const Path& path, std::span<const std::byte> content);
Status replace_file(FileSystem& fs, const Path& path, std::string_view content);

// Removes a directory with everything in it; success if it is not there. Stops at the first error. Follows no symlink.
Status remove_tree(FileSystem& fs, const Path& directory);

// True if `path` exists (anything, also what cannot be read).
bool exists(FileSystem& fs, const Path& path);

}  // namespace stasis
