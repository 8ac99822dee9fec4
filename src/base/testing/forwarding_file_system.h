// A FileSystem in front of another one: every call goes through before(), which may answer it with an error instead.
// What the other test file systems stand on.
#pragma once

#include <optional>
#include <string>

#include "base/file_system.h"

namespace stasis::testing {

class ForwardingFileSystem : public FileSystem {
 public:
  explicit ForwardingFileSystem(FileSystem& inner) : inner_(inner) {}

  Result<UniqueFd> open_read(const Path& path) override {
    if (auto error = before("open")) return fail(*error);
    return inner_.open_read(path);
  }
  Result<UniqueFd> create(const Path& path) override {
    if (auto error = before("create")) return fail(*error);
    return inner_.create(path);
  }
  Result<UniqueFd> open_write(const Path& path) override {
    if (auto error = before("open for writing")) return fail(*error);
    return inner_.open_write(path);
  }
  Result<size_t> read_at(int fd, uint64_t offset, std::span<std::byte> out) override {
    if (auto error = before("read")) return fail(*error);
    return inner_.read_at(fd, offset, out);
  }
  Result<size_t> read_now(int fd, uint64_t offset, std::span<std::byte> out) override {
    if (auto error = before("read")) return fail(*error);
    return inner_.read_now(fd, offset, out);
  }
  Result<FileMapping> map(int fd, uint64_t length) override {
    if (auto error = before("map")) return fail(*error);
    return inner_.map(fd, length);
  }
  Status write_at(int fd, uint64_t offset, std::span<const std::byte> data) override {
    if (auto error = before("write")) {
      before_failed_write(fd, offset, data);
      return fail(*error);
    }
    return inner_.write_at(fd, offset, data);
  }
  Status truncate(int fd, uint64_t size) override {
    if (auto error = before("truncate")) return fail(*error);
    return inner_.truncate(fd, size);
  }
  Status punch_hole(int fd, Range range) override {
    if (auto error = before("punch hole")) return fail(*error);
    return inner_.punch_hole(fd, range);
  }
  Result<std::vector<Range>> data_ranges(int fd) override {
    if (auto error = before("find data")) return fail(*error);
    return inner_.data_ranges(fd);
  }
  Status sync(int fd) override {
    if (auto error = before("sync")) return fail(*error);
    return inner_.sync(fd);
  }
  Status set_mode(int fd, unsigned mode) override {
    if (auto error = before("set mode")) return fail(*error);
    return inner_.set_mode(fd, mode);
  }
  Status sync_directory(const Path& path) override {
    if (auto error = before("sync directory")) return fail(*error);
    return inner_.sync_directory(path);
  }
  Status make_directory(const Path& path) override {
    if (auto error = before("make directory")) return fail(*error);
    return inner_.make_directory(path);
  }
  Status rename(const Path& from, const Path& to) override {
    if (auto error = before("rename")) return fail(*error);
    return inner_.rename(from, to);
  }
  Status remove(const Path& path) override {
    if (auto error = before("remove")) return fail(*error);
    return inner_.remove(path);
  }
  Status remove_directory(const Path& path) override {
    if (auto error = before("remove directory")) return fail(*error);
    return inner_.remove_directory(path);
  }
  Result<std::vector<std::string>> list(const Path& directory) override {
    if (auto error = before("list")) return fail(*error);
    return inner_.list(directory);
  }
  Result<FileInfo> info(const Path& path) override {
    if (auto error = before("look at")) return fail(*error);
    return inner_.info(path);
  }

 protected:
  virtual std::optional<Error> before(const char* what) = 0;
  // A write that before() answered with an error: whatever it leaves behind.
  virtual void before_failed_write(int /*fd*/, uint64_t /*offset*/, std::span<const std::byte> /*data*/) {}

  FileSystem& inner_;
};

}  // namespace stasis::testing
