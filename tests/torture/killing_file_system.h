// A FileSystem whose process is killed at its n-th call: a real SIGKILL, before the call or, for a write, in the middle
// of it.
#pragma once

#include <signal.h>

#include "base/testing/forwarding_file_system.h"

namespace stasis::testing {

class KillingFileSystem final : public ForwardingFileSystem {
 public:
  KillingFileSystem() : ForwardingFileSystem(real_file_system()) {}

  void kill_at(uint64_t n) {
    calls_ = 0;
    kill_at_ = n;
  }
  Status write_at(int fd, uint64_t offset, std::span<const std::byte> data) override {
    if (kill_at_ != 0 && calls_ + 1 == kill_at_) (void)inner_.write_at(fd, offset, data.first(data.size() / 2));
    return ForwardingFileSystem::write_at(fd, offset, data);
  }

 private:
  std::optional<Error> before(const char* /*what*/) override {
    if (++calls_ == kill_at_) ::raise(SIGKILL);
    return std::nullopt;
  }

  uint64_t calls_ = 0;
  uint64_t kill_at_ = 0;  // 0: never
};

}  // namespace stasis::testing
