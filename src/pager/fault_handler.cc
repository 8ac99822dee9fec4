#include "pager/fault_handler.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <thread>

namespace stasis::pager {
namespace {

// A source that cannot be read is tried this often before the sandbox is ended: a medium that has a hiccup recovers
// within milliseconds; a guest must not wait longer than that without knowing.
constexpr int kReadAttempts = 3;
constexpr std::chrono::milliseconds kReadPause{20};

// Bounded because each parked fault is one blocked vCPU or VMM thread; a VMM with more than this many is not one of
// ours.
constexpr size_t kMaxParked = 4096;

// Installed at once by a prefetch: a demand fault that comes meanwhile waits for it, some 60 us.
constexpr uint64_t kPrefetchPiece = uint64_t{256} << 10;
static_assert(kPrefetchPiece >= FaultWindow::kMaxPages * snapshot::kBlockSize);

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

uint64_t round_down(uint64_t value, uint64_t to) { return value - value % to; }

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

FaultHandler::FaultHandler(Handshake handshake, std::shared_ptr<const snapshot::AddressSpace> memory)
    : handshake_(std::move(handshake)),
      regions_by_offset_(sorted_by_offset(handshake_.regions)),
      memory_(std::move(memory)),
      page_size_(handshake_.regions.front().page_size),
      pages_(memory_->size(), page_size_),
      buffer_(std::max(page_size_, kPrefetchPiece)),
      zeros_(buffer_.size()),
      activity_(memory_->map()) {
  parked_.reserve(kMaxParked);
  retrying_.reserve(kMaxParked);
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
    if (count < events.size()) return true;
  }
}

Result<bool> FaultHandler::retry_parked() {
  retrying_.clear();
  retrying_.swap(parked_);
  for (const Fault& fault : retrying_) {
    STASIS_ASSIGN(const bool go_on, answer_or_park(fault));
    if (!go_on) return false;
  }
  activity_.set_parked(parked_.size());
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
    activity_.set_parked(parked_.size());
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
  return pages_.wants_snapshot(page_of(offset)) ? install_page(*region, offset)
                                                : install_zeros(*region, {offset, page_size_});
}

Result<FaultHandler::Answer> FaultHandler::install_page(const Region& region, uint64_t page_offset) {
  const snapshot::Extent extent = memory_->map().find(page_offset);
  const bool whole = page_offset + page_size_ <= extent.end();  // a huge page may span extents
  const bool zero = extent.is_zero() && whole;
  STASIS_ASSIGN(Answer answer, install_run(region, {page_offset, page_size_}, zero));
  if (answer != Answer::kDone) return answer;
  if (page_size_ >= snapshot::kFrameSize) {
    note_fault({page_offset, page_size_});
    return Answer::kDone;
  }
  const uint64_t page = page_of(page_offset);
  const bool continues = page > 0 && pages_.is_installed(page - 1);
  const bool cheap = zero && !zeros_are_copied();
  const Range pages = window_.around(page, continues, cheap ? FaultWindow::kMaxZeros : FaultWindow::kMaxPages);
  const uint64_t start = std::max({pages.offset * page_size_, extent.offset, region.offset});
  const uint64_t end = std::min({pages.end() * page_size_, extent.end(), region.offset + region.size});
  note_fault({start, end - start});
  activity_.by(Arrival::kAround);
  STASIS_ASSIGN(answer, install_absent(region, {start, end - start}, zero));
  // The faulting page is served: a neighbour that has to wait for a REMOVE event is simply not brought in.
  return answer == Answer::kPark ? Answer::kDone : answer;
}

Result<FaultHandler::Answer> FaultHandler::install_absent(const Region& region, Range window, bool zero) {
  uint64_t at = window.offset;
  while (at < window.end()) {
    if (!pages_.wants_snapshot(page_of(at))) {
      at += page_size_;
      continue;
    }
    Range run{at, 0};
    while (run.end() < window.end() && pages_.wants_snapshot(page_of(run.end()))) {
      run.length += page_size_;
    }
    STASIS_ASSIGN(const Answer answer, install_run(region, run, zero));
    if (answer != Answer::kDone) return answer;
    at = run.end();
  }
  return Answer::kDone;
}

void FaultHandler::expect(std::vector<Range> ranges) {
  prefetch_ = std::move(ranges);
  next_prefetch_ = 0;
  prefetch_left_ = total_length(prefetch_);
  activity_.set_prefetch_left(prefetch_left_);
}

// Short runs come several at once: one at a time, a guest that is at work meanwhile has faulted on most of them itself.
Result<bool> FaultHandler::prefetch_step() {
  for (uint64_t done = 0; done < kPrefetchPiece && has_prefetch();) {
    STASIS_ASSIGN(const PrefetchStep step, prefetch_one(kPrefetchPiece - done));
    if (step.gone) return false;
    if (step.bytes == 0) return true;  // an event waits to be read; then the same piece again
    done += step.bytes;
  }
  return true;
}

Result<FaultHandler::PrefetchStep> FaultHandler::prefetch_one(uint64_t most) {
  Range& range = prefetch_[next_prefetch_];
  const Range piece{range.offset, std::min(range.length, most)};
  const Result<Answer> answer = prefetch_piece(piece);
  if (!answer) {
    next_prefetch_ = prefetch_.size();
    activity_.set_prefetch_left(0);
    return PrefetchStep{};
  }
  if (*answer == Answer::kGone) return PrefetchStep{.gone = true};
  if (*answer == Answer::kPark) return PrefetchStep{};
  range.offset += piece.length;
  range.length -= piece.length;
  activity_.set_prefetch_left(prefetch_left_ -= piece.length);
  if (range.length == 0) ++next_prefetch_;
  return PrefetchStep{.bytes = piece.length};
}

// A huge page comes in whole if the piece starts in it.
Result<FaultHandler::Answer> FaultHandler::prefetch_piece(Range piece) {
  activity_.by(Arrival::kPrefetch);
  for (uint64_t at = piece.offset; at < piece.end();) {
    const Region* region = region_at(at);
    if (region == nullptr) return Answer::kDone;  // between regions: nothing of the guest's
    const snapshot::Extent extent = memory_->map().find(at);
    const uint64_t first = round_down(at, page_size_);
    const bool huge = page_size_ >= snapshot::kFrameSize;
    const uint64_t end =
        huge ? first + page_size_ : std::min({piece.end(), extent.end(), region->offset + region->size});
    const bool zero = extent.is_zero() && extent.end() >= end && extent.offset <= first;
    STASIS_ASSIGN(const Answer answer, install_absent(*region, {first, end - first}, zero));
    if (answer != Answer::kDone) return answer;
    at = end;
  }
  return Answer::kDone;
}

void FaultHandler::record() {
  recorded_.reserve(snapshot::kMaxRecordedFaults);
  recording_since_ = std::chrono::steady_clock::now();
  recording_ = true;
}

void FaultHandler::note_fault(Range run) {
  if (!recording_ || recorded_.size() == snapshot::kMaxRecordedFaults) return;
  const auto age = std::chrono::steady_clock::now() - recording_since_;
  const auto us = std::chrono::duration_cast<std::chrono::microseconds>(age).count();
  recorded_.push_back({run, static_cast<uint32_t>(us)});
  recorded_count_.store(recorded_.size(), std::memory_order_release);
}

Result<FaultHandler::Answer> FaultHandler::install_run(const Region& region, Range run, bool zero) {
  if (zero) return install_zeros(region, run);
  const std::span data(buffer_.data(), run.length);
  STASIS_TRY(read_memory(run.offset, data));
  for (uint64_t done = 0; done < run.length;) {
    const uint64_t address = region.host_address + (run.offset - region.offset) + done;
    const InstallResult result = handshake_.uffd.copy(address, data.subspan(done), handshake_.write_protect);
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
        copy ? handshake_.uffd.copy(address, std::span(zeros_.data(), run.length - done), handshake_.write_protect)
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
      // Someone was faster with the page at `done`: whoever waits for it must be woken, as no copy did.
      const Range there{region.host_address + (run.offset - region.offset) + done, page_size_};
      STASIS_TRY(handshake_.uffd.wake(there));
      activity_.was_there();
      pages_.found(page_of(run.offset + done));
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

Status FaultHandler::read_memory(uint64_t offset, std::span<std::byte> out) const {
  for (int attempt = 1;; ++attempt) {
    Status status = memory_->read(offset, out);
    if (status || attempt == kReadAttempts) return status;
    std::this_thread::sleep_for(kReadPause);
  }
}

void FaultHandler::mark_installed(Range run, bool zeros) {
  for (uint64_t at = run.offset; at < run.end(); at += page_size_) pages_.installed(page_of(at), zeros);
}

}  // namespace stasis::pager
