// The RAM of a QEMU guest: a memory file that the supervisor owns and QEMU maps shared. So it can be read after (and
// while) QEMU runs, by pread, without touching QEMU; a hole in it is a page that was never there.
#pragma once

#include <sys/types.h>

#include <vector>

#include "base/fd.h"
#include "base/file_system.h"
#include "base/result.h"

namespace stasis::vmm {

struct ChangedPages {
  std::vector<Range> all;    // since the guest was started, or since the last forget_told()
  std::vector<Range> fresh;  // of those, what changed since the last call
  bool tracked = false;      // by the kernel; otherwise both are every page that the file holds
};

class GuestRam {
 public:
  static Result<GuestRam> create(uint64_t size);

  int fd() const { return fd_.get(); }
  uint64_t size() const { return size_; }

  // What may have changed, while the guest runs or not. Where the
  // mapping is under asynchronous write-protection (a restored guest, Linux 6.7): pages written since, from
  // PAGEMAP_SCAN, which re-arms; a page that the scan calls written but that the file does not hold was never loaded.
  // Elsewhere, and after forget_tracking(): every page that the file holds. Never less than what changed.
  Result<ChangedPages> changed(pid_t vmm);
  // What was told until now has been taken over: it does not come again unless it changes again.
  void forget_told() { told_.clear(); }
  // The next changed() must offer everything: what was offered last got lost.
  void forget_tracking() {
    told_.clear();
    tracked_ = false;
  }

 private:
  GuestRam(UniqueFd fd, uint64_t size) : fd_(std::move(fd)), size_(size) {}
  Result<std::vector<Range>> written_pages(pid_t vmm) const;
  UniqueFd fd_;
  uint64_t size_;
  bool tracked_ = true;
  std::vector<Range> told_;
};

// The common parts of two sorted lists of disjoint ranges.
std::vector<Range> intersect(const std::vector<Range>& a, const std::vector<Range>& b);

}  // namespace stasis::vmm
