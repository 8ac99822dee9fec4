// A FileSystem that fails on command: the n-th call from now gets an error number, once or with every call after it (a
// device that is gone, or, seen from the store's directory, a process that was killed). A write that fails has written
// half of its bytes, as a full disk leaves it. Injected errors say "injected", what and which call.
#pragma once

#include <atomic>
#include <mutex>
#include <optional>
#include <string>

#include "base/testing/forwarding_file_system.h"

namespace stasis::testing {

class FaultyFileSystem : public ForwardingFileSystem {
 public:
  enum class Mode { kOnce, kFromThenOn };

  explicit FaultyFileSystem(FileSystem& inner = real_file_system()) : ForwardingFileSystem(inner) {}

  // The n-th call from now (1: the next) fails.
  void fail_at(uint64_t n, int error_number, Mode mode = Mode::kOnce) {
    const std::lock_guard lock(mutex_);
    injected_.clear();
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
  // The first error that was injected since fail_at(), for messages; the empty string if there was none.
  std::string injected() const {
    const std::lock_guard lock(mutex_);
    return injected_;
  }

 private:
  std::optional<Error> before(const char* what) override {
    const uint64_t call = ++calls_;
    const uint64_t at = fail_at_;
    if (at == 0 || call < at || (mode_ == Mode::kOnce && call > at)) return std::nullopt;
    fired_ = true;
    Error error = errno_error(error_number_, "injected: " + std::string(what) + ", call " + std::to_string(call));
    const std::lock_guard lock(mutex_);
    if (injected_.empty()) injected_ = error.message;
    return error;
  }
  void before_failed_write(int fd, uint64_t offset, std::span<const std::byte> data) override {
    (void)inner_.write_at(fd, offset, data.first(data.size() / 2));
  }

  std::atomic<uint64_t> calls_ = 0;
  std::atomic<uint64_t> fail_at_ = 0;
  std::atomic<bool> fired_ = false;
  int error_number_ = 0;
  Mode mode_ = Mode::kOnce;
  mutable std::mutex mutex_;
  std::string injected_;
};

}  // namespace stasis::testing
