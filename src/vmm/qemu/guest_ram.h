// The RAM of a QEMU guest: a memory file that the supervisor owns and QEMU maps shared. So it can be read after (and
// while) QEMU runs, by pread, without touching QEMU; a hole in it is a page that was never there.
#pragma once

#include <sys/types.h>

#include <vector>

#include "base/fd.h"
#include "base/file_system.h"
#include "base/result.h"

namespace stasis::vmm {

class GuestRam {
 public:
  static Result<GuestRam> create(uint64_t size);

  int fd() const { return fd_.get(); }
  uint64_t size() const { return size_; }

  // What may have changed since the guest was started or since the last call that returned successfully. Where the
  // mapping is under asynchronous write-protection (a restored guest, Linux 6.7): pages written since, from
  // PAGEMAP_SCAN, which re-arms; a page that the scan calls written but that the file does not hold was never loaded.
  // Elsewhere, and after forget_tracking(): every page that the file holds. Never less than what changed.
  Result<std::vector<Range>> changed(pid_t vmm);
  // The next changed() must offer everything: what was offered last got lost.
  void forget_tracking() { tracked_ = false; }

 private:
  GuestRam(UniqueFd fd, uint64_t size) : fd_(std::move(fd)), size_(size) {}
  Result<std::vector<Range>> written_pages(pid_t vmm) const;
  UniqueFd fd_;
  uint64_t size_;
  bool tracked_ = true;
};

// The common parts of two sorted lists of disjoint ranges.
std::vector<Range> intersect(const std::vector<Range>& a, const std::vector<Range>& b);

}  // namespace stasis::vmm
