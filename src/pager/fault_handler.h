// Answers the events of one userfaultfd: the part of the page server that knows pages. It is driven by one thread; its
// statistics and what was given back may be read from any. No allocation, lock or log on the path of a fault that
// succeeds.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/poll.h"
#include "base/rate_limit.h"
#include "pager/activity.h"
#include "pager/bulk_load.h"
#include "pager/fault_window.h"
#include "pager/handshake.h"
#include "pager/load_report.h"
#include "pager/page_table.h"
#include "snapshot/frame_fetcher.h"
#include "snapshot/layer.h"
#include "snapshot/working_set.h"

namespace stasis::pager {

struct FaultCounters {
  std::atomic<uint64_t> faults{0};
  std::atomic<uint64_t> pages_removed{0};
};

// Bounded because each fault that is not answered at once is one blocked vCPU or VMM thread; a VMM with more than this
// many is not one of ours.
inline constexpr size_t kMaxParked = 4096;

class FaultHandler {
 public:
  // `fetcher`: brings frames of `memory` that are not here.
  FaultHandler(Handshake handshake, std::shared_ptr<const snapshot::AddressSpace> memory,
               std::unique_ptr<snapshot::FrameFetcher> fetcher);

  int fd() const { return handshake_.uffd.fd(); }
  // Reads every event that is there and answers it: REMOVEs of a batch before its faults. True: go on. False: the VMM
  // is exiting, nothing more to do. An error ends the sandbox.
  Result<bool> handle_events();
  // Faults that the kernel refused for the moment (EAGAIN while a REMOVE waits unread). Same answers as handle_events.
  bool has_parked() const { return !parked_.empty(); }
  Result<bool> retry_parked();
  // Faults whose frame is not here wait for it, while others are answered. take_fetched(): to be called when
  // fetched_fd() is readable, and at fetch_deadline() if any fault waits. Same answers as handle_events.
  int fetched_fd() const { return fetcher_->fd(); }
  bool has_waiting() const { return !waiting_.empty(); }
  Deadline fetch_deadline() const { return fetcher_->next_deadline(); }
  Result<bool> take_fetched();

  // What prefetch_step() brings in, in this order: ranges of guest memory, multiples of the block size.
  void expect(std::vector<Range> ranges);
  // False also while its next piece is being fetched.
  bool has_prefetch() const { return prefetch_.is_ready(); }
  // Brings in the next of it, 256 KiB. A piece that cannot be had ends the prefetch, nothing else: the guest may never
  // ask for it, and if it does, its fault tells. Same answers as handle_events.
  Result<bool> prefetch_step();

  // Background loading: what layers hold and the guest has not touched comes in by pieces, sorted, when nothing else is
  // to be done, at most so many bytes a second. Zeros are no layer's: they come when they are touched. A piece that
  // cannot be had ends it, nothing else. `rest`: ranges of guest memory that come from layers.
  void load_rest(std::vector<Range> rest, uint64_t bytes_per_second);
  // There is something to load that waits for no frame; it is its turn at load_due(). Not while faults are written
  // down: a guest whose memory comes by itself does not tell what it needs.
  bool can_load() const { return !recording_ && rest_.is_ready() && prefetch_.is_empty(); }
  RateLimit::Clock::time_point load_due() const { return load_rate_.next(); }
  // Same answers as handle_events.
  Result<bool> load_step();
  LoadReport load_report() const;

  // From now on (until stop_recording) demand faults are written down, with their neighbours, up to a limit.
  void record();
  void stop_recording() { recording_ = false; }
  // Until now. Any thread.
  std::vector<snapshot::WorkingSetEntry> recorded() const;

  const FaultCounters& counters() const { return counters_; }
  const Activity& activity() const { return activity_; }
  size_t frames_wanted() const { return fetcher_->queue_length(); }
  // See PageServer. Complete as of the call: whoever has returned from a madvise that removed pages finds them here.
  std::vector<Range> given_back() const;
  std::vector<Range> take_given_back();
  const std::vector<Region>& regions() const { return handshake_.regions; }

 private:
  Result<bool> read_and_answer();
  enum class Answer { kDone, kPark, kWait, kGone };
  struct Fault {
    uint64_t address = 0;
    FaultKind kind = FaultKind::kRead;
    Activity::Clock::time_point since;  // when it was read
  };
  struct WaitingFault {
    Fault fault;
    uint64_t offset = 0;  // of its page in guest memory
    snapshot::FrameRef frame;
  };
  // What an install came to. kWait: the bytes at `missing` of guest memory have to be fetched first.
  struct Progress {
    Answer answer = Answer::kDone;
    uint64_t missing = 0;
  };
  const Region* region_of(uint64_t address) const;
  const Region* region_at(uint64_t offset) const;  // offset in guest memory
  Status apply_remove(const FaultEvent& event);
  Result<bool> answer_or_park(const Fault& fault);
  Result<Answer> answer_fault(const Fault& fault);
  Result<Progress> install_page(const Region& region, uint64_t page_offset);
  // The absent pages of `window`. kWait: those whose frames are not here were left out, and their frames asked for.
  Result<Answer> install_absent(const Region& region, Range window, bool zero, snapshot::FetchUrgency urgency);
  struct BulkStep {
    uint64_t bytes = 0;  // 0: nothing for now
    bool gone = false;
  };
  Result<bool> bulk_step(BulkLoad& load);
  Result<BulkStep> bulk_one(BulkLoad& load, uint64_t most);
  Result<Answer> bulk_piece(const BulkLoad& load, Range piece);
  void ask_ahead(const BulkLoad& load);
  void note_fault(Range run);
  Result<Progress> install_run(const Region& region, Range run, bool zero);
  Result<Progress> install_read(const Region& region, Range run);
  Result<Answer> copy_in(const Region& region, Range run, std::span<const std::byte> source, uint64_t& done);
  Result<Answer> install_zeros(const Region& region, Range run);
  Result<Answer> settle(const Region& region, Range run, bool zeros, const InstallResult& result, uint64_t& done);
  bool lacks_huge_pages(uint64_t page);
  // Asks for the first frame of `range`, or, of a huge page, for all that are not here. Returns where to go on behind
  // it.
  uint64_t ask_for(Range range, snapshot::FetchUrgency urgency);
  Status wait_for(const Fault& fault, uint64_t page_offset, uint64_t missing);
  // Answers waiting faults anew. `failure`, if any, is that of those whose page is still to come from the snapshot.
  template <typename Which>
  Result<bool> answer_waiting(Which which, const Error* failure);
  Result<bool> answer_removed();
  bool wants_snapshot(const WaitingFault& waiting) const { return pages_.wants_snapshot(page_of(waiting.offset)); }
  void end_bulk(BulkLoad& load, const Error& why);
  void show_left();
  void show_parked() { activity_.set_parked(parked_.size() + waiting_.size()); }
  void mark_installed(Range run, bool zeros);
  void await_applied() const;
  // Huge pages have no ZEROPAGE.
  bool zeros_are_copied() const { return page_size_ != snapshot::kBlockSize; }
  uint64_t page_of(uint64_t offset) const { return offset / page_size_; }
  static uint64_t round_down(uint64_t value, uint64_t to) { return value - value % to; }

  Handshake handshake_;
  std::vector<Region> regions_by_offset_;
  std::shared_ptr<const snapshot::AddressSpace> memory_;
  uint64_t page_size_;
  PageTable pages_;
  std::vector<Fault> parked_;
  std::vector<Fault> retrying_;
  size_t found_in_a_row_ = 0;  // huge pages, since the last one was installed
  std::unique_ptr<snapshot::FrameFetcher> fetcher_;
  std::vector<WaitingFault> waiting_;
  std::vector<WaitingFault> answering_;
  FaultWindow window_;
  BulkLoad prefetch_{Arrival::kPrefetch, snapshot::FetchUrgency::kAhead};
  BulkLoad rest_{Arrival::kBackground, snapshot::FetchUrgency::kBackground};
  RateLimit load_rate_;
  std::atomic<LoadState> load_state_{LoadState::kNone};
  std::optional<Error> load_error_;  // set before the state says so
  uint64_t installed_bytes_ = 0;
  bool recording_ = false;
  std::chrono::steady_clock::time_point recording_since_;
  std::vector<snapshot::WorkingSetEntry> recorded_;  // as many as are counted; never moved
  std::atomic<size_t> recorded_count_{0};
  std::vector<std::byte> buffer_;  // the largest window, or one huge page
  // As large, where zeros are copied; and in memory: of a source that is not there yet the kernel makes a copy first,
  // which of a huge page takes a second one from the pool.
  std::vector<std::byte> zeros_;
  FaultCounters counters_;
  Activity activity_;
  // Set while events that were read are not yet applied. A flag and not a lock: the path of a fault takes none.
  std::atomic<bool> applying_{false};
};

}  // namespace stasis::pager
