// The RAM of a QEMU guest. Of one that was booted it is a memory file that the supervisor owns and QEMU maps shared: so
// it can be read after (and while) QEMU runs, by pread, without touching QEMU; a hole in it is a page that was never
// there. Of one that was restored it is private memory of QEMU's in that file's place, read out of QEMU while it lives:
// anonymous where a page server serves, since a page of zeros costs nothing there (in a memory file 4 KiB), and
// mappings of layers.
#pragma once

#include <sys/types.h>

#include <span>
#include <vector>

#include "base/fd.h"
#include "base/file_system.h"
#include "base/memory_source.h"
#include "base/piecework.h"
#include "base/result.h"
#include "base/userfaultfd.h"
#include "vmm/vmm.h"

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

  // From now on guest memory is private memory at this address of QEMU, whose userfaultfd `tracker` is: of files
  // where `of_files` says, and anonymous memory else, which where `served` says a page server's userfaultfd has
  // registered. Both are sorted and disjoint, also from each other.
  void is_mapped_at(uint64_t address, UserFaultFd tracker, const std::vector<Range>& of_files,
                    std::vector<Range> served = {});
  // The guest was booted, in the memory file; `tracker` is QEMU's userfaultfd.
  void is_booted(UserFaultFd tracker) {
    tracker_ = std::move(tracker);
    tracked_ = false;
  }
  // For a guest that is not served all of it, so that changed() can tell what is written between two calls: of
  // what files are mapped in until stop_tracking(), since registered memory is read from its file page by page instead
  // of 16 at once; of anonymous memory and of a booted guest from then on.
  Status start_tracking(pid_t vmm);
  // With the guest running: what it takes (80 ms for 4 GiB of files) goes by in pieces, between which its page faults
  // are answered.
  void stop_tracking();

  // Where the content is to be read: of a restored guest nothing but what changed() has told, since to read what was
  // not loaded would load it.
  Result<MemorySource> source(pid_t vmm) const;

  // What may have changed, while the guest runs or not; never less than what did. Of a booted guest, once it is tracked
  // (Linux 6.9): pages written since, from PAGEMAP_SCAN, which re-arms; a page that the scan calls written but that the
  // file does not hold was never there. Until then, and after forget_tracking(): every page that the file holds. Of a
  // restored guest: QEMU's own pages, which of mappings are those that were written since the restore; of what is
  // served, or tracked from one snapshot to the next, those of them that a scan calls written. What was told and is not
  // held any more is told no longer, if it is among `given_back`. Whoever helps with `walk` shares the scan.
  Result<ChangedPages> changed(pid_t vmm, std::span<const Range> given_back = {}, Piecework* walk = nullptr);
  // What was told until now has been taken over: it does not come again unless it changes again.
  void forget_told() { told_.clear(); }
  Result<GuestMemoryUse> use(pid_t vmm) const;
  // The next changed() must offer everything: what was offered last got lost.
  void forget_tracking() {
    forget_told();
    tracked_ = false;
  }

 private:
  GuestRam(UniqueFd fd, uint64_t size) : fd_(std::move(fd)), size_(size) {}
  Result<uint64_t> address(pid_t vmm);
  Result<ChangedPages> changed_in_file(pid_t vmm, Piecework* walk);
  Result<ChangedPages> changed_in_mappings(pid_t vmm, std::span<const Range> given_back, Piecework* walk);
  // Of memory that is mapped, in order: what may have been written since the last call, and pages of the layers that
  // were read. kUnimplemented if the kernel does not tell.
  Result<std::vector<Range>> touched_in_mappings(int pagemap, Piecework* walk) const;
  // Where the kernel tells what is written.
  std::vector<Range> watched() const;
  Result<std::vector<Range>> own_pages(int pagemap, const std::vector<Range>& among) const;
  // What was told and is not QEMU's any more.
  Result<std::vector<Range>> gone_of_told(int pagemap, std::span<const Range> given_back) const;
  UniqueFd fd_;
  uint64_t size_;
  bool tracked_ = true;
  std::vector<Range> told_;
  uint64_t file_at_ = 0;          // where QEMU has mapped the file, once that was asked
  uint64_t mapped_at_ = 0;        // 0: the memory file
  std::vector<Range> of_files_;   // with what is so near them that it is not worth a call of its own
  std::vector<Range> anonymous_;  // the rest that is not served
  std::vector<Range> served_;
  UserFaultFd tracker_;             // of QEMU
  bool tracking_ = false;           // all of it is registered
  bool anonymous_tracked_ = false;  // this is, whether or not files are
};

}  // namespace stasis::vmm
