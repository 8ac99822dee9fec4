#include "pager/fault_handler.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <thread>

namespace stasis::pager {
namespace {

using snapshot::FetchUrgency;

static_assert(kBulkPiece >= FaultWindow::kMaxPages * snapshot::kBlockSize);

void add(std::atomic<uint64_t>& counter, uint64_t n) {
  counter.store(counter.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);  // one writer: no lock prefix
}

FaultCause cause_of(PageState state) {
  switch (state) {
    case PageState::kAbsent:
      return FaultCause::kAbsent;
    case PageState::kRemoved:
      return FaultCause::kRemoved;
    case PageState::kClean:
    case PageState::kZero:
      break;
  }
  return FaultCause::kPresent;
}

std::vector<Region> sorted_by_offset(std::vector<Region> regions) {
  std::ranges::sort(regions, {}, &Region::offset);
  return regions;
}

// The region that holds `value`; `sorted` is sorted by `start`. A search and no walk: a VMM may hand over 4096 of them.
const Region* find_region(std::span<const Region> sorted, uint64_t Region::*start, uint64_t value) {
  const auto after = std::ranges::upper_bound(sorted, value, {}, start);
  if (after == sorted.begin()) return nullptr;
  const Region& region = *std::prev(after);
  return value - region.*start < region.size ? &region : nullptr;
}

// Events after which nobody can say any more where guest memory is. None of a VMM that is ours asks for them.
std::string what_happened(FaultEvent::Kind kind) {
  switch (kind) {
    case FaultEvent::Kind::kUnmap:
      return "the VMM has unmapped guest memory";
    case FaultEvent::Kind::kRemap:
      return "the VMM has moved guest memory";
    case FaultEvent::Kind::kFork:
      return "the VMM has forked";
    default:
      return "userfaultfd told an event that this version of Stasis does not know";
  }
}

Error why_not_installed(const InstallResult& result, uint64_t offset, uint64_t page_size) {
  const std::string what = "install page at offset " + std::to_string(offset) + " of guest memory";
  if (result.outcome == InstallOutcome::kUnregistered) {
    return {Code::kInternal, what + ": the VMM has unmapped it"};
  }
  Error error = errno_error(result.error_number, what);
  const bool huge = page_size != snapshot::kBlockSize;
  if (huge && error.code == Code::kResourceExhausted) error.remedy = "raise vm.nr_hugepages: its pool is empty";
  return error;
}

}  // namespace

FaultHandler::FaultHandler(Handshake handshake, std::shared_ptr<const snapshot::AddressSpace> memory,
                           std::unique_ptr<snapshot::FrameFetcher> fetcher)
    : handshake_(std::move(handshake)),
      regions_by_offset_(sorted_by_offset(handshake_.regions)),
      memory_(std::move(memory)),
      page_size_(handshake_.regions.front().page_size),
      pages_(memory_->size(), page_size_),
      fetcher_(std::move(fetcher)),
      buffer_(std::max(page_size_, kBulkPiece)),
      zeros_(zeros_are_copied() ? buffer_.size() : 0),
      activity_(memory_->map()) {
  parked_.reserve(kMaxParked);
  retrying_.reserve(kMaxParked);
  waiting_.reserve(kMaxParked);
}

Result<bool> FaultHandler::handle_events() {
  applying_ = true;
  Result<bool> result = read_and_answer();
  applying_ = false;
  return result;
}

// madvise returns when its event has been read, which is a moment before it has been applied.
void FaultHandler::await_applied() const {
  while (applying_) std::this_thread::yield();
}

std::vector<Range> FaultHandler::given_back() const {
  await_applied();
  return pages_.given_back();
}

std::vector<Range> FaultHandler::take_given_back() {
  await_applied();
  return pages_.take_given_back();
}

Result<bool> FaultHandler::read_and_answer() {
  std::array<FaultEvent, 64> events;
  for (;;) {
    STASIS_ASSIGN(const size_t count, handshake_.uffd.read_events(events));
    const std::span batch(events.data(), count);
    const auto since = activity_.batch(count);
    for (const FaultEvent& event : batch) {
      if (event.kind == FaultEvent::Kind::kRemove) {
        STASIS_TRY(apply_remove(event));
      } else if (event.kind != FaultEvent::Kind::kPageFault) {
        return fail(Code::kInternal, what_happened(event.kind));
      }
    }
    for (const FaultEvent& event : batch) {
      if (event.kind != FaultEvent::Kind::kPageFault) continue;
      add(counters_.faults, 1);
      const FaultKind kind = event.write ? FaultKind::kWrite : FaultKind::kRead;
      STASIS_ASSIGN(const bool go_on, answer_or_park({event.address, kind, since}));
      if (!go_on) return false;
    }
    if (count < events.size()) break;
  }
  return waiting_.empty() ? true : answer_removed();
}

Result<bool> FaultHandler::retry_parked() {
  retrying_.clear();
  retrying_.swap(parked_);
  for (const Fault& fault : retrying_) {
    STASIS_ASSIGN(const bool go_on, answer_or_park(fault));
    if (!go_on) return false;
  }
  show_parked();
  return true;
}

Result<bool> FaultHandler::answer_or_park(const Fault& fault) {
  const Result<Answer> answer = answer_fault(fault);
  if (!answer) {
    activity_.fault_failed();
    return fail(answer.error());
  }
  if (*answer == Answer::kGone) return false;
  if (*answer == Answer::kPark) {
    if (parked_.size() == kMaxParked) return fail(Code::kInternal, "too many faults wait for a REMOVE event");
    parked_.push_back(fault);
    show_parked();
  }
  return true;
}

const Region* FaultHandler::region_of(uint64_t address) const {
  return find_region(handshake_.regions, &Region::host_address, address);
}

const Region* FaultHandler::region_at(uint64_t offset) const {
  return find_region(regions_by_offset_, &Region::offset, offset);
}

Status FaultHandler::apply_remove(const FaultEvent& event) {
  for (const Region& region : handshake_.regions) {
    const uint64_t start = std::max(event.address, region.host_address);
    const uint64_t end = std::min(event.end, region.host_address + region.size);
    if (start >= end) continue;
    // Round inwards: the kernel removes whole pages only.
    const uint64_t first = (start - region.host_address + region.offset + page_size_ - 1) / page_size_;
    const uint64_t last = (end - region.host_address + region.offset) / page_size_;
    for (uint64_t page = first; page < last; ++page) pages_.removed(page);
    if (last > first) add(counters_.pages_removed, last - first);
  }
  return {};
}

Result<FaultHandler::Answer> FaultHandler::answer_fault(const Fault& fault) {
  const uint64_t address = fault.address;
  const Region* region = region_of(address);
  if (region == nullptr) {
    return fail(Code::kInternal,
                "page fault at " + std::to_string(address) + ", outside every region of the handshake");
  }
  const uint64_t offset = region->offset + round_down(address - region->host_address, page_size_);
  activity_.begin_fault(fault.kind, cause_of(pages_.state(page_of(offset))), fault.since);
  // Zeros for a page that is there find EEXIST, and wake a second thread whose fault the first answer has served.
  if (!pages_.wants_snapshot(page_of(offset))) return install_zeros(*region, {offset, page_size_});
  STASIS_ASSIGN(const Progress progress, install_page(*region, offset));
  if (progress.answer == Answer::kWait) STASIS_TRY(wait_for(fault, offset, progress.missing));
  return progress.answer;
}

Result<FaultHandler::Progress> FaultHandler::install_page(const Region& region, uint64_t page_offset) {
  const snapshot::Extent extent = memory_->map().find(page_offset);
  const bool whole = page_offset + page_size_ <= extent.end();  // a huge page may span extents
  const bool zero = extent.is_zero() && whole;
  STASIS_ASSIGN(const Progress progress, install_run(region, {page_offset, page_size_}, zero));
  if (progress.answer != Answer::kDone) return progress;
  if (page_size_ >= snapshot::kFrameSize) {
    note_fault({page_offset, page_size_});
    return Progress{};
  }
  const uint64_t page = page_of(page_offset);
  const bool continues = page > 0 && pages_.is_installed(page - 1);
  const bool cheap = zero && !zeros_are_copied();
  const Range pages = window_.around(page, continues, cheap ? FaultWindow::kMaxZeros : FaultWindow::kMaxPages);
  const uint64_t start = std::max({pages.offset * page_size_, extent.offset, region.offset});
  const uint64_t end = std::min({pages.end() * page_size_, extent.end(), region.offset + region.size});
  note_fault({start, end - start});
  activity_.by(Arrival::kAround);
  STASIS_ASSIGN(const Answer answer, install_absent(region, {start, end - start}, zero, FetchUrgency::kNear));
  // The faulting page is served: a neighbour that has to wait, for a REMOVE event or its frame, is simply not brought
  // in.
  return Progress{answer == Answer::kGone ? Answer::kGone : Answer::kDone};
}

Result<FaultHandler::Answer> FaultHandler::install_absent(const Region& region, Range window, bool zero,
                                                          FetchUrgency urgency) {
  Answer all = Answer::kDone;
  const uint64_t end = page_of(window.end());
  for (uint64_t page = page_of(window.offset); (page = pages_.next_wanted(page, end)) < end;) {
    const uint64_t past = pages_.end_of_wanted(page, end);
    const Range run{page * page_size_, (past - page) * page_size_};
    STASIS_ASSIGN(const Progress progress, install_run(region, run, zero));
    page = past;
    if (progress.answer == Answer::kWait) {
      all = Answer::kWait;
      page = page_of(ask_for({progress.missing, run.end() - progress.missing}, urgency));
    } else if (progress.answer != Answer::kDone) {
      return progress.answer;
    }
  }
  return all;
}

void FaultHandler::record() {
  recorded_.resize(snapshot::kMaxRecordedFaults);
  recording_since_ = std::chrono::steady_clock::now();
  recording_ = true;
}

void FaultHandler::note_fault(Range run) {
  const size_t count = recorded_count_.load(std::memory_order_relaxed);
  if (!recording_ || count == recorded_.size()) return;
  const auto age = std::chrono::steady_clock::now() - recording_since_;
  const auto us = std::chrono::duration_cast<std::chrono::microseconds>(age).count();
  recorded_[count] = {run, static_cast<uint32_t>(us)};
  recorded_count_.store(count + 1, std::memory_order_release);
}

std::vector<snapshot::WorkingSetEntry> FaultHandler::recorded() const {
  const auto count = static_cast<long>(recorded_count_.load(std::memory_order_acquire));
  return {recorded_.begin(), recorded_.begin() + count};
}

Result<FaultHandler::Progress> FaultHandler::install_run(const Region& region, Range run, bool zero) {
  if (zero) {
    STASIS_ASSIGN(const Answer answer, install_zeros(region, run));
    return Progress{answer};
  }
  uint64_t done = 0;
  STASIS_ASSIGN(const Answer answer, copy_in(region, run, memory_->view_for_kernel(run.offset, run.length), done));
  if (answer != Answer::kDone || done == run.length) return Progress{answer};
  return install_read(region, {run.offset + done, run.length - done});
}

// What comes from storage for the first time, and what the kernel could not read: an error is told with its reason.
Result<FaultHandler::Progress> FaultHandler::install_read(const Region& region, Range run) {
  const uint64_t here = memory_->read_now(run.offset, std::span(buffer_.data(), run.length));
  const uint64_t whole = round_down(here, page_size_);
  uint64_t done = 0;
  STASIS_ASSIGN(const Answer answer, copy_in(region, run, std::span(buffer_).first(whole), done));
  if (answer != Answer::kDone) return Progress{answer};
  if (done < whole) return fail(why_not_installed({InstallOutcome::kFailed, 0, EFAULT}, run.offset + done, page_size_));
  return here == run.length ? Progress{} : Progress{Answer::kWait, run.offset + here};
}

// kDone with `done` short of `source`: the kernel cannot read on there. Straight from a layer's pages: a copy of ours
// in between took 4% of a fault's time and 12% of a working set's.
Result<FaultHandler::Answer> FaultHandler::copy_in(const Region& region, Range run, std::span<const std::byte> source,
                                                   uint64_t& done) {
  while (done < source.size()) {
    const uint64_t address = region.host_address + (run.offset - region.offset) + done;
    const InstallResult result = handshake_.uffd.copy(address, source.subspan(done), handshake_.write_protect);
    if (result.outcome == InstallOutcome::kFailed && result.error_number == EFAULT) return Answer::kDone;
    STASIS_ASSIGN(const Answer answer, settle(region, run, false, result, done));
    if (answer != Answer::kDone) return answer;
  }
  return Answer::kDone;
}

Result<FaultHandler::Answer> FaultHandler::install_zeros(const Region& region, Range run) {
  const bool copy = zeros_are_copied();
  for (uint64_t done = 0; done < run.length;) {
    const uint64_t address = region.host_address + (run.offset - region.offset) + done;
    const InstallResult result =
        copy ? handshake_.uffd.copy(address, std::span(zeros_).first(run.length - done), handshake_.write_protect)
             : handshake_.uffd.zero({address, run.length - done});
    STASIS_ASSIGN(const Answer answer, settle(region, run, true, result, done));
    if (answer != Answer::kDone) return answer;
  }
  return Answer::kDone;
}

// Accounts for what one ioctl did and moves `done` on. kDone: carry on from `done`, or finished.
Result<FaultHandler::Answer> FaultHandler::settle(const Region& region, Range run, bool zeros,
                                                  const InstallResult& result, uint64_t& done) {
  mark_installed({run.offset + done, result.bytes}, zeros);
  if (result.bytes > 0) activity_.came({run.offset + done, result.bytes}, zeros);
  done += result.bytes;
  switch (result.outcome) {
    case InstallOutcome::kDone:
      return Answer::kDone;
    case InstallOutcome::kExists: {
      const uint64_t page = page_of(run.offset + done);
      if (lacks_huge_pages(page)) {
        return fail(why_not_installed({InstallOutcome::kFailed, 0, ENOMEM}, run.offset + done, page_size_));
      }
      // Someone was faster with the page at `done`: whoever waits for it must be woken, as no copy did.
      const Range there{region.host_address + (run.offset - region.offset) + done, page_size_};
      STASIS_TRY(handshake_.uffd.wake(there));
      activity_.was_there();
      pages_.found(page);
      done += page_size_;
      return Answer::kDone;
    }
    case InstallOutcome::kTryAgain:
      // A short answer comes back as EAGAIN too: go on from there; only no progress at all means that an event waits.
      return result.bytes > 0 ? Answer::kDone : Answer::kPark;
    case InstallOutcome::kProcessGone:
      return Answer::kGone;
    case InstallOutcome::kUnregistered:
    case InstallOutcome::kFailed:
      break;
  }
  return fail(why_not_installed(result, run.offset + done, page_size_));
}

// Of a huge page the kernel (6.18) says "exists" too when its pool has none left; whoever is woken then faults again,
// for ever, and zeros would come if the page were taken for one that is there and the pool got pages again. Nobody else
// installs huge pages, so one that this table does not have is not there. Of those that it has, each thread that waits
// may find the page once, but not more of them than there can be.
bool FaultHandler::lacks_huge_pages(uint64_t page) {
  if (page_size_ == snapshot::kBlockSize) return false;
  return !pages_.is_installed(page) || ++found_in_a_row_ > kMaxParked;
}

void FaultHandler::mark_installed(Range run, bool zeros) {
  if (run.length > 0) found_in_a_row_ = 0;
  installed_bytes_ += run.length;
  pages_.installed(page_of(run.offset), page_of(run.length), zeros);
}

}  // namespace stasis::pager
