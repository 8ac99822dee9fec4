// For tests: a mounted FUSE file system that is alive but answers nothing, so that whoever looks up a name in it waits
// there, until it is killed or the file system is given up. Needs root.
#pragma once

#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <sys/mount.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string>
#include <system_error>

#include "base/fd.h"
#include "guest/test_directory.h"

namespace stasis::guest {

class SilentMount {
 public:
  SilentMount() : device_(open("/dev/fuse", O_RDWR | O_CLOEXEC)) {
    const std::string options =
        "fd=" + std::to_string(device_.get()) + ",rootmode=40000,user_id=0,group_id=0,allow_other";
    if (mount("silent", directory_.path().c_str(), "fuse", MS_NOSUID | MS_NODEV, options.c_str()) != 0) {
      throw std::system_error(errno, std::generic_category(), "mount a FUSE file system");
    }
    greet();
  }
  ~SilentMount() {
    give_up();
    (void)umount2(directory_.path().c_str(), MNT_DETACH);
  }
  SilentMount(const SilentMount&) = delete;
  SilentMount& operator=(const SilentMount&) = delete;

  std::string path(const std::string& name) const { return directory_.path(name); }
  // Waits until somebody waits for an answer. The request is not taken: who waits for one that was cannot be killed.
  bool await_request() const {
    pollfd entry{device_.get(), POLLIN, 0};
    return poll(&entry, 1, 20'000) == 1;
  }
  // All requests fail, now and later.
  void give_up() { device_.reset(); }

 private:
  // Until its first request is answered, the kernel sends no other.
  void greet() {
    alignas(fuse_in_header) std::array<char, FUSE_MIN_READ_BUFFER> request;
    if (read(device_.get(), request.data(), request.size()) < 0) {
      throw std::system_error(errno, std::generic_category(), "read the first request of a FUSE file system");
    }
    struct {
      fuse_out_header header{};
      fuse_init_out init{};
    } answer;
    fuse_in_header header;
    std::memcpy(&header, request.data(), sizeof(header));
    answer.header.len = sizeof(answer);
    answer.header.unique = header.unique;
    answer.init.major = FUSE_KERNEL_VERSION;
    answer.init.minor = FUSE_KERNEL_MINOR_VERSION;
    answer.init.max_write = 4096;
    if (write(device_.get(), &answer, sizeof(answer)) < 0) {
      throw std::system_error(errno, std::generic_category(), "answer the first request of a FUSE file system");
    }
  }

  TestDirectory directory_;
  UniqueFd device_;
};

}  // namespace stasis::guest
