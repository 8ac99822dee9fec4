// The page server: answers a VMM's page faults from an AddressSpace through userfaultfd. It listens on a unix socket,
// takes one handshake in Firecracker's form (handshake.h), lets nobody else connect from then on, and serves on a
// thread of its own until the VMM goes or it is destroyed. A fault brings in its page first, then neighbours of the
// same extent (fault_window.h); between faults what is expected to be needed comes in by large pieces; zeros are
// installed as zero pages. Rules: shared/notes/uffd.md. A page that cannot be had, or an event that is not understood,
// ends the sandbox: on_failure is called once with the reason, from the server's thread, and the server stops; the
// faulting vCPU stays blocked, so the callee must kill the VMM. The VMM's exit is not a failure; that it closes its
// connection and lives on is one.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/unix_socket.h"
#include "pager/activity.h"
#include "pager/handshake.h"
#include "pager/load_report.h"
#include "snapshot/fetch_queue.h"
#include "snapshot/layer.h"
#include "snapshot/working_set.h"

namespace stasis::pager {

struct PageServerOptions {
  // From when the VMM is known until all of its message has come.
  Milliseconds handshake_deadline{10'000};
  // How long a VMM that has left the page server may take to end: the kernel first frees all of its memory.
  Milliseconds exit_deadline{10'000};
  std::function<void(const Error&)> on_failure;
  // What of guest memory is served, if it is not all of it: sorted, disjoint, none beside another, whole blocks. The
  // VMM hands over just that, and has the rest in another way.
  std::vector<Range> served;
  // What the guest is expected to touch soon: sorted, disjoint, multiples of the block size within the memory.
  std::vector<Range> prefetch;
  // How long from the handshake on demand faults are written down (the working set) at most; zero: not at all.
  Milliseconds record_for{0};
  // Everything that layers hold comes in, once the working set has been brought in and written down, at most so many
  // bytes a second; 0: only what is touched.
  uint64_t load_bytes_per_second = 0;
  // How often and how long frames that are not in memory are tried before a guest that waits for them is ended.
  snapshot::FetchLimits fetch = {};
  // Has frames that the layers' files do not hold (snapshot/filled_frames.h); null: they hold all of them.
  std::shared_ptr<const snapshot::FrameSource> elsewhere = {};
};

// Counts since the handshake. pages_* are 4 KiB pages; fault + around + prefetched + loaded + zero = all pages that
// were installed.
struct PageServerStats {
  uint64_t faults = 0;
  uint64_t pages_by_fault = 0;  // the faulting pages themselves, from layers
  uint64_t pages_around = 0;    // their neighbours, from layers
  uint64_t pages_prefetched = 0;
  uint64_t pages_loaded = 0;   // in the background
  uint64_t pages_zero = 0;     // zero pages
  uint64_t pages_removed = 0;  // given back by the guest
  uint64_t total_pages = 0;    // of guest memory
};

class PageServer {
 public:
  // Listens at once and starts the thread: a VMM may be started as soon as this returns.
  static Result<std::unique_ptr<PageServer>> start(const Path& socket,
                                                   std::shared_ptr<const snapshot::AddressSpace> memory,
                                                   PageServerOptions options);
  // Stops the thread, also one that still waits for its VMM, and removes the socket.
  ~PageServer();
  PageServer(const PageServer&) = delete;
  PageServer& operator=(const PageServer&) = delete;

  // Tells who may connect: the handshake is refused if SO_PEERCRED names another process. Until it is called the
  // handshake waits. To be called once, before the process is reaped.
  Status expect_peer(pid_t vmm);

  // Returns once the VMM has handed its memory over. A VMM that runs without having done so would run on zeros: whoever
  // restores one asks before its guest runs. kDeadlineExceeded if it has not by then.
  Status await_handshake(Deadline deadline) const;

  PageServerStats stats() const;
  // Empty before the handshake.
  ActivityStats activity() const;
  Timeline timeline() const;
  LoadReport load() const;
  // Guest memory that the guest has given back since the last take_removed(): it reads as zeros where it has not been
  // written since. Sorted, merged. A capture takes it before it asks what was written (what is given back from then on
  // is told to the next one too), looks once more afterwards, and keeps what it took until it has succeeded.
  std::vector<Range> removed() const;
  std::vector<Range> take_removed();
  // Readable once working_set() is complete: `record_for` after the handshake, or when it was told to end before.
  int working_set_fd() const;
  // The guest has what it needs, or almost: what it touches later than `span` from now is not of its working set.
  void end_recording_after(Milliseconds span);
  // What was needed until now, in that order.
  std::vector<snapshot::WorkingSetEntry> working_set() const;
  // The regions of the handshake; empty before it.
  std::vector<Region> regions() const;

 private:
  struct State;
  explicit PageServer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace stasis::pager
