// userfaultfd(2), thinly: one function per operation, with the outcomes that callers must tell apart
// as values instead of errno. Addresses are of the process whose memory is registered, in bytes, multiples of the page
// size.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "base/fd.h"
#include "base/file_system.h"
#include "base/result.h"

namespace stasis {

// What the kernel answered to UFFDIO_COPY, UFFDIO_ZEROPAGE and the like.
enum class InstallOutcome {
  kDone,          // all of it
  kExists,        // stopped at a page that is there already: someone was faster
  kTryAgain,      // a REMOVE event waits unread (EAGAIN): read events, then try again
  kProcessGone,   // ESRCH: the process is exiting
  kUnregistered,  // ENOENT: the range is no longer registered (unmapped)
  kFailed,        // anything else; see error_number
};

struct InstallResult {
  InstallOutcome outcome = InstallOutcome::kDone;
  uint64_t bytes = 0;  // installed from the start of the range, whatever the outcome
  int error_number = 0;
};

// Sync points "userfaultfd.copy" and "userfaultfd.zero", before each such call: a test may shorten the range, which
// then is answered as the kernel answers a short copy, or answer in the kernel's place.
struct InstallAttempt {
  Range range;
  std::optional<InstallResult> answer = {};
};

struct FaultEvent {
  enum class Kind { kPageFault, kRemove, kUnmap, kRemap, kFork, kUnknown };
  Kind kind = Kind::kUnknown;
  uint64_t address = 0;  // page fault: of the fault; remove, unmap: start
  uint64_t end = 0;      // remove, unmap
  bool write_protect = false;
  bool write = false;  // page fault: it was to be written, not read
};

// Sync point "userfaultfd.events", after each read: a test may change the `count` events that were read.
struct ReadEvents {
  std::span<FaultEvent> events;
  size_t count = 0;
};

class UserFaultFd {
 public:
  UserFaultFd() = default;
  // Takes over a descriptor of our own.
  explicit UserFaultFd(UniqueFd fd) : fd_(std::move(fd)) {}
  // The same of one that another process has sent, which may be anything: kInvalidArgument if it is no userfaultfd, of
  // which nobody but the kernel tells events. It is made non-blocking.
  static Result<UserFaultFd> received(UniqueFd fd);
  // A new one for this process, non-blocking, with EVENT_REMOVE and, if `write_protect_async`, the features that
  // asynchronous write-protection of shared memory needs. kUnimplemented if the kernel lacks one.
  static Result<UserFaultFd> create(bool write_protect_async);

  int fd() const { return fd_.get(); }
  Status register_missing(Range range, bool write_protect) const;
  // Of any kind of memory, if the descriptor has the features of asynchronous write-protection: nothing is protected
  // before a scan resets it (pagemap.h). unregister() forgets what was.
  Status register_write_protect(Range range) const;
  Status unregister(Range range) const;

  // Reads as many events as fit in `events`; 0 if there are none now. kUnavailable at end of file. The userfaultfd of a
  // forked child, which comes with kFork, is closed.
  Result<size_t> read_events(std::span<FaultEvent> events) const;

  // Copies source.size() bytes to `address`, waking whoever waits unless `wake` is false. `write_protect` installs the
  // pages protected, so that a later scan knows which were written.
  InstallResult copy(uint64_t address, std::span<const std::byte> source, bool write_protect, bool wake = true) const;
  InstallResult zero(Range range, bool wake = true) const;
  // Zero pages through UFFDIO_ZEROPAGE cannot be write-protected in the same call: this protects what is there.
  Status protect(Range range) const;
  Status wake(Range range) const;

 private:
  UniqueFd fd_;
};

// What this kernel offers, for `doctor` and for choosing.
struct UserFaultSupport {
  bool available = false;
  bool missing_shmem = false;
  bool event_remove = false;
  bool write_protect_async = false;  // and the kernel can be asked what was written (pagemap.h)
};
UserFaultSupport probe_userfaultfd();

}  // namespace stasis
