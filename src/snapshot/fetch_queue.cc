#include "snapshot/fetch_queue.h"

#include <algorithm>
#include <string>
#include <utility>

namespace stasis::snapshot {

FetchQueue::Entry* FetchQueue::find(FrameRef frame) {
  const auto found = std::ranges::find(entries_, frame, &Entry::frame);
  return found == entries_.end() ? nullptr : &*found;
}

void FetchQueue::raise(Entry& entry, FetchUrgency urgency, Time now) const {
  entry.urgency = std::min(entry.urgency, urgency);
  if (urgency == FetchUrgency::kDemand && entry.deadline == Time::max()) entry.deadline = now + limits_.deadline;
}

bool FetchQueue::want(FrameRef frame, FetchUrgency urgency, Time now) {
  Entry* entry = find(frame);
  if (entry == nullptr) {
    const auto same = std::ranges::count(entries_, urgency, &Entry::urgency);
    if (urgency != FetchUrgency::kDemand && static_cast<size_t>(same) >= limits_.most_unwaited) return false;
    entry = &entries_.emplace_back(Entry{.frame = frame, .urgency = urgency});
  } else if (entry->given_up) {  // wanted anew: whoever still fetches it may yet be successful
    *entry = {.frame = frame, .urgency = urgency, .fetching = true};
  }
  raise(*entry, urgency, now);
  return true;
}

std::optional<FrameRef> FetchQueue::start(Time now) {
  Entry* best = nullptr;
  for (Entry& entry : entries_) {
    if (entry.fetching || entry.not_before > now) continue;
    if (best == nullptr || entry.urgency < best->urgency) best = &entry;
  }
  if (best == nullptr) return std::nullopt;
  best->fetching = true;
  return best->frame;
}

size_t FetchQueue::unstarted() const {
  return static_cast<size_t>(std::ranges::count(entries_, false, &Entry::fetching));
}

FetchQueue::Time FetchQueue::next_start() const {
  Time next = Time::max();
  for (const Entry& entry : entries_) {
    if (!entry.fetching) next = std::min(next, entry.not_before);
  }
  return next;
}

void FetchQueue::finish(FrameRef frame, Status status, Time now) {
  Entry* entry = find(frame);
  const auto index = static_cast<size_t>(entry - entries_.data());
  if (entry->given_up) {
    entries_.erase(entries_.begin() + static_cast<ptrdiff_t>(index));
    return;
  }
  entry->fetching = false;
  if (status || ++entry->attempts >= limits_.attempts) return settle(index, std::move(status));
  entry->trouble = ": " + status.error().message;
  entry->not_before = now + pause_after(entry->attempts);
}

void FetchQueue::give_up(FrameRef frame, Error error) {
  settle(static_cast<size_t>(find(frame) - entries_.data()), fail(std::move(error)));
}

Milliseconds FetchQueue::pause_after(int attempts) const {
  Milliseconds pause = limits_.first_pause;
  for (int i = 1; i < attempts && pause < limits_.longest_pause; ++i) pause *= 2;
  return std::min(pause, limits_.longest_pause);
}

void FetchQueue::expire(Time now) {
  for (size_t i = entries_.size(); i-- > 0;) {
    if (entries_[i].given_up || entries_[i].deadline > now) continue;
    const std::string late = "it did not come within " + std::to_string(limits_.deadline.count()) + " ms";
    settle(i, fail(Code::kDeadlineExceeded, late + entries_[i].trouble));
  }
}

FetchQueue::Time FetchQueue::next_deadline() const {
  Time next = Time::max();
  for (const Entry& entry : entries_) {
    if (!entry.given_up) next = std::min(next, entry.deadline);
  }
  return next;
}

// One that is still being fetched stays, so that it is not fetched twice at once.
void FetchQueue::settle(size_t index, Status status) {
  Entry& entry = entries_[index];
  settled_.push_back({entry.frame, entry.urgency, std::move(status)});
  if (entry.fetching) {
    entry.given_up = true;
  } else {
    entries_.erase(entries_.begin() + static_cast<ptrdiff_t>(index));
  }
}

}  // namespace stasis::snapshot
