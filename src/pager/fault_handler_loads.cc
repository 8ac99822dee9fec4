// What comes in beside the answers to faults: frames that had to be fetched, and what is brought in ahead.
#include <algorithm>

#include "base/sync_point.h"
#include "pager/fault_handler.h"

namespace stasis::pager {
namespace {

// Frames that are looked at for being asked for ahead, each time: more than are fetched at once.
constexpr size_t kLookAhead = 64;

}  // namespace

uint64_t FaultHandler::ask_for(Range range, snapshot::FetchUrgency urgency) {
  const bool huge = page_size_ >= snapshot::kFrameSize;
  uint64_t at = range.offset;
  do {
    const auto place = memory_->frame_at(at);
    // The first is asked for in any case: it could not be read.
    if (place && (at == range.offset || !place->verified)) (void)fetcher_->want(place->frame, urgency);
    at = place ? place->range.end() : memory_->map().find(at).end();
  } while (huge && at < range.end());
  return std::min(at, range.end());
}

Status FaultHandler::wait_for(const Fault& fault, uint64_t page_offset, uint64_t missing) {
  if (waiting_.size() == kMaxParked) return fail(Code::kInternal, "too many faults wait for the frames of layers");
  (void)ask_for({missing, page_offset + page_size_ - missing}, snapshot::FetchUrgency::kDemand);
  waiting_.push_back({fault, page_offset, memory_->frame_at(missing)->frame});
  show_parked();
  return {};
}

// Takes those out of the table first: an answer may put one back, for its next frame.
template <typename Which>
Result<bool> FaultHandler::answer_waiting(Which which, const Error* failure) {
  answering_.clear();
  std::erase_if(waiting_, [&](const WaitingFault& waiting) {
    if (!which(waiting)) return false;
    answering_.push_back(waiting);
    return true;
  });
  for (const WaitingFault& waiting : answering_) {
    if (failure != nullptr && wants_snapshot(waiting)) {
      activity_.begin_fault(waiting.fault.kind, FaultCause::kAbsent, waiting.fault.since);
      activity_.fault_failed();
      return fail(*failure);
    }
    STASIS_ASSIGN(const bool go_on, answer_or_park(waiting.fault));
    if (!go_on) return false;
  }
  show_parked();
  return true;
}

// Zeros need no frame.
Result<bool> FaultHandler::answer_removed() {
  return answer_waiting([&](const WaitingFault& waiting) { return !wants_snapshot(waiting); }, nullptr);
}

Result<bool> FaultHandler::take_fetched() {
  for (const snapshot::Fetched& fetched : fetcher_->take()) {
    sync_point("fault_handler.fetched");
    const auto waits_for_it = [&](const WaitingFault& waiting) { return waiting.frame == fetched.frame; };
    STASIS_ASSIGN(const bool go_on, answer_waiting(waits_for_it, fetched.status ? nullptr : &fetched.status.error()));
    if (!go_on) return false;
    for (BulkLoad* load : {&prefetch_, &rest_}) {
      if (!fetched.status && fetched.urgency == load->urgency()) end_bulk(*load, fetched.status.error());
    }
  }
  prefetch_.frames_came();
  rest_.frames_came();
  return true;
}

void FaultHandler::expect(std::vector<Range> ranges) {
  prefetch_.expect(std::move(ranges));
  show_left();
}

Result<bool> FaultHandler::prefetch_step() { return bulk_step(prefetch_); }

void FaultHandler::load_rest(std::vector<Range> rest, uint64_t bytes_per_second) {
  rest_.expect(std::move(rest));
  load_rate_ = RateLimit(bytes_per_second);
  load_state_ = rest_.is_empty() ? LoadState::kComplete : LoadState::kLoading;
  show_left();
}

Result<bool> FaultHandler::load_step() {
  const uint64_t before = installed_bytes_;
  STASIS_ASSIGN(const bool go_on, bulk_step(rest_));
  load_rate_.took(installed_bytes_ - before, RateLimit::Clock::now());
  if (rest_.is_empty() && load_state_ == LoadState::kLoading) load_state_ = LoadState::kComplete;
  return go_on;
}

LoadReport FaultHandler::load_report() const {
  const LoadState state = load_state_;
  return {state, state == LoadState::kEnded ? load_error_ : std::nullopt};
}

// Short runs come several at once: one at a time, a guest that is at work meanwhile has faulted on most of them itself.
Result<bool> FaultHandler::bulk_step(BulkLoad& load) {
  for (uint64_t done = 0; done < kBulkPiece && load.is_ready();) {
    STASIS_ASSIGN(const BulkStep step, bulk_one(load, kBulkPiece - done));
    if (step.gone) return false;
    if (step.bytes == 0) return true;  // an event waits to be read; then the same piece again
    done += step.bytes;
  }
  return true;
}

Result<FaultHandler::BulkStep> FaultHandler::bulk_one(BulkLoad& load, uint64_t most) {
  const Range piece = load.piece(most);
  const Result<Answer> answer = bulk_piece(load, piece);
  if (!answer) {
    end_bulk(load, answer.error());
    return BulkStep{};
  }
  switch (*answer) {
    case Answer::kGone:
      return BulkStep{.gone = true};
    case Answer::kPark:
      return BulkStep{};
    case Answer::kWait:
      load.await_frames();
      ask_ahead(load);
      return BulkStep{};
    case Answer::kDone:
      break;
  }
  load.advance(piece.length);
  show_left();
  return BulkStep{.bytes = piece.length};
}

// A huge page comes in whole if the piece starts in it.
Result<FaultHandler::Answer> FaultHandler::bulk_piece(const BulkLoad& load, Range piece) {
  activity_.by(load.how());
  Answer all = Answer::kDone;
  for (uint64_t at = piece.offset; at < piece.end();) {
    const Region* region = region_at(at);
    if (region == nullptr) {  // between regions: nothing of the guest's
      const auto next = std::ranges::upper_bound(regions_by_offset_, at, {}, &Region::offset);
      if (next == regions_by_offset_.end()) break;
      at = next->offset;
      continue;
    }
    const snapshot::Extent extent = memory_->map().find(at);
    const uint64_t first = round_down(at, page_size_);
    const bool huge = page_size_ >= snapshot::kFrameSize;
    const uint64_t end =
        huge ? first + page_size_ : std::min({piece.end(), extent.end(), region->offset + region->size});
    const bool zero = extent.is_zero() && extent.end() >= end && extent.offset <= first;
    STASIS_ASSIGN(const Answer answer, install_absent(*region, {first, end - first}, zero, load.urgency()));
    if (answer == Answer::kWait) {
      all = answer;
    } else if (answer != Answer::kDone) {
      return answer;
    }
    at = end;
  }
  return all;
}

// So that frames come several at once, however short the ranges are.
void FaultHandler::ask_ahead(const BulkLoad& load) {
  size_t looked_at = 0;
  for (const Range& range : load.rest()) {
    for (uint64_t at = range.offset; at < range.end();) {
      if (++looked_at > kLookAhead) return;
      const auto place = memory_->frame_at(at);
      const bool needed = place && !place->verified && pages_.wants_snapshot(page_of(at));
      if (needed && !fetcher_->want(place->frame, load.urgency())) return;
      at = place ? place->range.end() : memory_->map().find(at).end();
    }
  }
}

// What could not be had may never be asked for.
void FaultHandler::end_bulk(BulkLoad& load, const Error& why) {
  load.end();
  show_left();
  if (&load != &rest_ || load_state_ != LoadState::kLoading) return;
  load_error_ = why;
  load_state_ = LoadState::kEnded;
}

void FaultHandler::show_left() {
  activity_.set_prefetch_left(prefetch_.left());
  activity_.set_load_left(rest_.left());
}

}  // namespace stasis::pager
