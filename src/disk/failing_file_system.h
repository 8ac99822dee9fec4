// For the tests of this room: the real file system, of which one chosen call that changes something or opens a file
// fails.
#pragma once

#include "base/file_system.h"

namespace stasis::disk {

class FailingFileSystem final : public FileSystem {
 public:
  // The n-th call from now on fails (1: the next), and with `for_good` all after it too. 0: none does.
  void fail_call(uint64_t n, Code code = Code::kInternal, bool for_good = false) {
    countdown_ = n;
    code_ = code;
    for_good_ = for_good;
    failed_ = false;
  }
  bool failed() const { return failed_; }

  Result<UniqueFd> open_read(const Path& path) override {
    STASIS_TRY(next());
    return real_.open_read(path);
  }
  Result<UniqueFd> create(const Path& path) override {
    STASIS_TRY(next());
    return real_.create(path);
  }
  Result<UniqueFd> open_write(const Path& path) override {
    STASIS_TRY(next());
    return real_.open_write(path);
  }
  Result<size_t> read_at(int fd, uint64_t offset, std::span<std::byte> out) override {
    STASIS_TRY(next());
    return real_.read_at(fd, offset, out);
  }
  Status write_at(int fd, uint64_t offset, std::span<const std::byte> data) override {
    if (Status status = next(); !status) {
      (void)real_.write_at(fd, offset, data.first(data.size() / 2));  // as a disk that fills up does
      return status;
    }
    return real_.write_at(fd, offset, data);
  }
  Status truncate(int fd, uint64_t size) override {
    STASIS_TRY(next());
    return real_.truncate(fd, size);
  }
  Status punch_hole(int fd, Range range) override {
    STASIS_TRY(next());
    return real_.punch_hole(fd, range);
  }
  Result<std::vector<Range>> data_ranges(int fd) override {
    STASIS_TRY(next());
    return real_.data_ranges(fd);
  }
  Status sync(int fd) override {
    STASIS_TRY(next());
    return real_.sync(fd);
  }
  Status set_mode(int fd, unsigned mode) override {
    STASIS_TRY(next());
    return real_.set_mode(fd, mode);
  }
  Status sync_directory(const Path& path) override {
    STASIS_TRY(next());
    return real_.sync_directory(path);
  }
  Status make_directory(const Path& path) override {
    STASIS_TRY(next());
    return real_.make_directory(path);
  }
  Status rename(const Path& from, const Path& to) override {
    STASIS_TRY(next());
    return real_.rename(from, to);
  }
  Status remove(const Path& path) override { return real_.remove(path); }
  Status remove_directory(const Path& path) override { return real_.remove_directory(path); }
  Result<std::vector<std::string>> list(const Path& directory) override { return real_.list(directory); }
  Result<FileInfo> info(const Path& path) override { return real_.info(path); }

 private:
  Status next() {
    const bool now = countdown_ == 1 || (failed_ && for_good_);
    if (countdown_ > 0) --countdown_;
    if (!now) return {};
    failed_ = true;
    return fail(code_, "a failure made by the test");
  }

  FileSystem& real_ = real_file_system();
  uint64_t countdown_ = 0;
  Code code_ = Code::kInternal;
  bool for_good_ = false;
  bool failed_ = false;
};

}  // namespace stasis::disk
