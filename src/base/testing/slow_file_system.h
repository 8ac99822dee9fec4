// A FileSystem whose files are not in memory, on a device that answers when the test lets it: from hold() on,
// read_now() finds nothing and read_at() waits until its offset is released, or fails as often as it is told to.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <map>
#include <mutex>
#include <set>
#include <vector>

#include "base/poll.h"
#include "base/testing/forwarding_file_system.h"

namespace stasis::testing {

class SlowFileSystem : public ForwardingFileSystem {
 public:
  SlowFileSystem() : ForwardingFileSystem(real_file_system()) {}

  void hold() {
    set([&] { holds_ = true; });
  }
  // Reads at this offset go on, those that wait and those that come; release(): all.
  void release(uint64_t offset) {
    set([&] { released_.insert(offset); });
  }
  void release() {
    set([&] { holds_ = false; });
  }
  // The next `times` reads at this offset fail with EIO.
  void fail_at(uint64_t offset, int times) {
    set([&] { failures_[offset] = times; });
  }
  // The next `times` reads at this offset have another first byte.
  void damage_at(uint64_t offset, int times) {
    set([&] { damaged_[offset] = times; });
  }

  // Reads at this offset fail, those that wait too.
  void break_at(uint64_t offset) {
    set([&] { broken_.insert(offset); });
  }

  // Offsets of the reads that have begun, in their order.
  std::vector<uint64_t> begun() {
    const std::lock_guard lock(mutex_);
    return begun_;
  }
  // Until so many reads have begun.
  bool await_begun(size_t count, Deadline deadline = Deadline::after(Milliseconds(20'000))) {
    std::unique_lock lock(mutex_);
    return changed_.wait_until(lock, deadline.at(), [&] { return begun_.size() >= count; });
  }

  Result<size_t> read_now(int fd, uint64_t offset, std::span<std::byte> out) override {
    const std::unique_lock lock(mutex_);
    if (holds_) return fail(Code::kUnavailable, "not in memory");
    return inner_.read_now(fd, offset, out);
  }
  Result<size_t> read_at(int fd, uint64_t offset, std::span<std::byte> out) override {
    STASIS_TRY(reach(offset));
    STASIS_ASSIGN(const size_t read, inner_.read_at(fd, offset, out));
    const std::lock_guard lock(mutex_);
    if (damaged_[offset]-- > 0) out.front() ^= std::byte{0xff};
    return read;
  }
  // What has come from the device.
  uint64_t resident_pages(const FileMapping& mapping, Range range) override {
    const std::unique_lock lock(mutex_);
    return holds_ && come_.contains(range.offset) ? inner_.resident_pages(mapping, range) : 0;
  }

 private:
  template <typename Change>
  void set(Change change) {
    const std::lock_guard lock(mutex_);
    change();
    changed_.notify_all();
  }
  Status reach(uint64_t offset) {
    std::unique_lock lock(mutex_);
    if (!holds_) return {};
    begun_.push_back(offset);
    changed_.notify_all();
    if (failures_[offset] > 0) {
      --failures_[offset];
      return fail_errno(EIO, "read");
    }
    changed_.wait(lock, [&] { return !holds_ || released_.contains(offset) || broken_.contains(offset); });
    if (broken_.contains(offset)) return fail_errno(EIO, "read");
    come_.insert(offset);
    return {};
  }
  std::optional<Error> before(const char* /*what*/) override { return std::nullopt; }

  std::mutex mutex_;
  std::condition_variable changed_;
  bool holds_ = false;
  std::set<uint64_t> released_;
  std::set<uint64_t> broken_;
  std::set<uint64_t> come_;
  std::map<uint64_t, int> failures_;
  std::map<uint64_t, int> damaged_;
  std::vector<uint64_t> begun_;
};

}  // namespace stasis::testing
