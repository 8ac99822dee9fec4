// Answers the events of one userfaultfd: the part of the page server that knows pages. It is driven by one thread; its
// statistics and what was given back may be read from any. No allocation, lock or log on the path of a fault that
// succeeds.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "pager/activity.h"
#include "pager/fault_window.h"
#include "pager/handshake.h"
#include "pager/page_table.h"
#include "snapshot/layer.h"
#include "snapshot/working_set.h"

namespace stasis::pager {

struct FaultCounters {
  std::atomic<uint64_t> faults{0};
  std::atomic<uint64_t> pages_removed{0};
};

class FaultHandler {
 public:
  FaultHandler(Handshake handshake, std::shared_ptr<const snapshot::AddressSpace> memory);

  int fd() const { return handshake_.uffd.fd(); }
  // Reads every event that is there and answers it: REMOVEs of a batch before its faults. True: go on. False: the VMM
  // is exiting, nothing more to do. An error ends the sandbox.
  Result<bool> handle_events();
  // Faults that the kernel refused for the moment (EAGAIN while a REMOVE waits unread). Same answers as handle_events.
  bool has_parked() const { return !parked_.empty(); }
  Result<bool> retry_parked();

  // What prefetch_step() brings in, in this order: ranges of guest memory, multiples of the block size.
  void expect(std::vector<Range> ranges);
  bool has_prefetch() const { return next_prefetch_ < prefetch_.size(); }
  // Brings in the next of it, 256 KiB. A piece that cannot be had ends the prefetch, nothing else: the guest may never
  // ask for it, and if it does, its fault tells. Same answers as handle_events.
  Result<bool> prefetch_step();

  // From now on (until stop_recording) demand faults are written down, with their neighbours, up to a limit.
  void record();
  void stop_recording() { recording_ = false; }
  // Until now; from any thread. What is there stays where it is.
  std::span<const snapshot::WorkingSetEntry> recorded() const {
    return {recorded_.data(), recorded_count_.load(std::memory_order_acquire)};
  }

  const FaultCounters& counters() const { return counters_; }
  const Activity& activity() const { return activity_; }
  // See PageServer. Complete as of the call: whoever has returned from a madvise that removed pages finds them here.
  std::vector<Range> given_back() const;
  std::vector<Range> take_given_back();
  const std::vector<Region>& regions() const { return handshake_.regions; }

 private:
  Result<bool> read_and_answer();
  enum class Answer { kDone, kPark, kGone };
  struct Fault {
    uint64_t address = 0;
    FaultKind kind = FaultKind::kRead;
    Activity::Clock::time_point since;  // when it was read
  };
  const Region* region_of(uint64_t address) const;
  const Region* region_at(uint64_t offset) const;  // offset in guest memory
  Status apply_remove(const FaultEvent& event);
  Result<bool> answer_or_park(const Fault& fault);
  Result<Answer> answer_fault(const Fault& fault);
  Result<Answer> install_page(const Region& region, uint64_t page_offset);
  // The absent pages of `window`.
  Result<Answer> install_absent(const Region& region, Range window, bool zero);
  struct PrefetchStep {
    uint64_t bytes = 0;  // 0: nothing for now
    bool gone = false;
  };
  Result<PrefetchStep> prefetch_one(uint64_t most);
  Result<Answer> prefetch_piece(Range piece);
  void note_fault(Range run);
  Result<Answer> install_run(const Region& region, Range run, bool zero);
  Result<Answer> install_zeros(const Region& region, Range run);
  Result<Answer> settle(const Region& region, Range run, bool zeros, const InstallResult& result, uint64_t& done);
  Status read_memory(uint64_t offset, std::span<std::byte> out) const;
  void mark_installed(Range run, bool zeros);
  void await_applied() const;
  // Where pages must come write-protected (ZEROPAGE cannot), and huge pages (which have no ZEROPAGE).
  bool zeros_are_copied() const { return handshake_.write_protect || page_size_ != snapshot::kBlockSize; }
  uint64_t page_of(uint64_t offset) const { return offset / page_size_; }

  Handshake handshake_;
  std::vector<Region> regions_by_offset_;
  std::shared_ptr<const snapshot::AddressSpace> memory_;
  uint64_t page_size_;
  PageTable pages_;
  std::vector<Fault> parked_;
  std::vector<Fault> retrying_;
  FaultWindow window_;
  std::vector<Range> prefetch_;
  size_t next_prefetch_ = 0;
  uint64_t prefetch_left_ = 0;  // bytes
  bool recording_ = false;
  std::chrono::steady_clock::time_point recording_since_;
  std::vector<snapshot::WorkingSetEntry> recorded_;  // never grows beyond what record() has reserved
  std::atomic<size_t> recorded_count_ = 0;
  std::vector<std::byte> buffer_;  // the largest window, or one huge page
  std::vector<std::byte> zeros_;
  FaultCounters counters_;
  Activity activity_;
  // Set while events that were read are not yet applied. A flag and not a lock: the path of a fault takes none.
  std::atomic<bool> applying_{false};
};

}  // namespace stasis::pager
