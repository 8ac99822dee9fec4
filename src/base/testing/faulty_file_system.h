// A FileSystem that fails on command: the n-th call from now gets an error number, once or with every call after it (a
// device that is gone). A write that fails has written half of its bytes, as a full disk leaves it. Injected errors say
// "injected". Syncs are counted and can fail, but are not passed on: what a sync is for cannot be seen without a power
// cut.
#pragma once

#include <atomic>
#include <optional>
#include <string>

#include "base/file_system.h"

namespace stasis::testing {

class FaultyFileSystem : public FileSystem {
 public:
  enum class Mode { kOnce, kFromThenOn };

  explicit FaultyFileSystem(FileSystem& inner = real_file_system()) : inner_(inner) {}

  // The n-th call from now (1: the next) fails.
  void fail_at(uint64_t n, int error_number, Mode mode = Mode::kOnce) {
    error_number_ = error_number;
    mode_ = mode;
    fired_ = false;
    calls_ = 0;
    fail_at_ = n;
  }
  void heal() { fail_at_ = 0; }
  // Calls since fail_at() or the start.
  uint64_t calls() const { return calls_; }
  bool fired() const { return fired_; }

  Result<UniqueFd> open_read(const Path& path) override {
    if (auto error = injected("open")) return fail(*error);
    return inner_.open_read(path);
  }
  Result<UniqueFd> create(const Path& path) override {
    if (auto error = injected("create")) return fail(*error);
    return inner_.create(path);
  }
  Result<UniqueFd> open_write(const Path& path) override {
    if (auto error = injected("open for writing")) return fail(*error);
    return inner_.open_write(path);
  }
  Result<size_t> read_at(int fd, uint64_t offset, std::span<std::byte> out) override {
    if (auto error = injected("read")) return fail(*error);
    return inner_.read_at(fd, offset, out);
  }
  Status write_at(int fd, uint64_t offset, std::span<const std::byte> data) override {
    if (auto error = injected("write")) {
      (void)inner_.write_at(fd, offset, data.first(data.size() / 2));
      return fail(*error);
    }
    return inner_.write_at(fd, offset, data);
  }
  Status truncate(int fd, uint64_t size) override {
    if (auto error = injected("truncate")) return fail(*error);
    return inner_.truncate(fd, size);
  }
  Status punch_hole(int fd, Range range) override {
    if (auto error = injected("punch hole")) return fail(*error);
    return inner_.punch_hole(fd, range);
  }
  Result<std::vector<Range>> data_ranges(int fd) override {
    if (auto error = injected("find data")) return fail(*error);
    return inner_.data_ranges(fd);
  }
  Status sync(int /*fd*/) override {
    if (auto error = injected("sync")) return fail(*error);
    return {};
  }
  Status set_mode(int fd, unsigned mode) override {
    if (auto error = injected("set mode")) return fail(*error);
    return inner_.set_mode(fd, mode);
  }
  Status sync_directory(const Path& /*path*/) override {
    if (auto error = injected("sync directory")) return fail(*error);
    return {};
  }
  Status make_directory(const Path& path) override {
    if (auto error = injected("make directory")) return fail(*error);
    return inner_.make_directory(path);
  }
  Status rename(const Path& from, const Path& to) override {
    if (auto error = injected("rename")) return fail(*error);
    return inner_.rename(from, to);
  }
  Status remove(const Path& path) override {
    if (auto error = injected("remove")) return fail(*error);
    return inner_.remove(path);
  }
  Status remove_directory(const Path& path) override {
    if (auto error = injected("remove directory")) return fail(*error);
    return inner_.remove_directory(path);
  }
  Result<std::vector<std::string>> list(const Path& directory) override {
    if (auto error = injected("list")) return fail(*error);
    return inner_.list(directory);
  }
  Result<FileInfo> info(const Path& path) override {
    if (auto error = injected("look at")) return fail(*error);
    return inner_.info(path);
  }

 private:
  std::optional<Error> injected(const char* what) {
    const uint64_t call = ++calls_;
    const uint64_t at = fail_at_;
    if (at == 0 || call < at || (mode_ == Mode::kOnce && call > at)) return std::nullopt;
    fired_ = true;
    return errno_error(error_number_, "injected: " + std::string(what) + ", call " + std::to_string(call));
  }

  FileSystem& inner_;
  std::atomic<uint64_t> calls_ = 0;
  std::atomic<uint64_t> fail_at_ = 0;
  std::atomic<bool> fired_ = false;
  int error_number_ = 0;
  Mode mode_ = Mode::kOnce;
};

}  // namespace stasis::testing
