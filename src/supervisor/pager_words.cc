#include "supervisor/pager_words.h"

#include <algorithm>
#include <iterator>
#include <span>

namespace stasis::supervisor {
namespace {

using namespace pager;
using snapshot::kBlockSize;

std::string source_name(snapshot::LayerId layer) { return layer.is_nil() ? PagerReport::kZeros : layer.text(); }

Arrival way_of(const MappedRun& run) { return run.copied ? Arrival::kCopied : Arrival::kMapped; }

void add_faults(PagerReport& report, const ActivityStats& stats) {
  for (size_t kind = 0; kind < kFaultKinds; ++kind) {
    for (size_t cause = 0; cause < kFaultCauses; ++cause) {
      for (size_t outcome = 0; outcome < kFaultOutcomes; ++outcome) {
        const uint64_t count = stats.faults[kind][cause][outcome];
        if (count == 0) continue;
        report.faults.push_back({std::string(name_of(static_cast<FaultKind>(kind))),
                                 std::string(name_of(static_cast<FaultCause>(cause))),
                                 std::string(name_of(static_cast<FaultOutcome>(outcome))), count});
      }
    }
  }
}

void add_pages(PagerReport& report, const PerArrival<uint64_t>& pages) {
  for (size_t how = 0; how < kArrivals; ++how) {
    for (const bool zeros : {false, true}) {
      const uint64_t count = pages[how][zeros ? 1 : 0];
      if (count > 0) report.pages.push_back({std::string(name_of(static_cast<Arrival>(how))), zeros, count});
    }
  }
}

}  // namespace

PagerReport report_of(const ActivityStats& stats) {
  PagerReport report;
  add_faults(report, stats);
  report.service.assign(stats.service.begin(), stats.service.end());
  report.service_ns = stats.service_ns;
  add_pages(report, stats.pages);
  for (const auto& source : stats.sources) report.sources.push_back({source_name(source.layer), source.bytes});
  report.parked = stats.parked;
  report.fetching = stats.fetching;
  report.prefetch_left = stats.prefetch_left;
  report.load_left = stats.load_left;
  report.largest_batch = stats.largest_batch;
  return report;
}

PagerReport report_of(const MappedPlan& plan) {
  PagerReport report;
  PerArrival<uint64_t> pages{};
  std::vector<uint64_t> bytes(plan.layers.size());
  for (const MappedRun& run : plan.runs) {
    pages[static_cast<size_t>(way_of(run))][0] += run.length / kBlockSize;
    bytes[run.layer] += run.length;
  }
  add_pages(report, pages);
  for (size_t i = 0; i < bytes.size(); ++i) report.sources.push_back({plan.layers[i]->id().text(), bytes[i]});
  return report;
}

void add_load(TraceReply& reply, const LoadReport& load) {
  switch (load.state) {
    case LoadState::kNone:
      break;
    case LoadState::kLoading:
      reply.load = kLoading;
      break;
    case LoadState::kComplete:
      reply.load = kLoadComplete;
      break;
    case LoadState::kEnded:
      reply.load = kLoadEnded;
      reply.load_error = load.why->message;
      break;
  }
}

void add_timeline(TraceReply& reply, const Timeline& timeline) {
  for (const ArrivalEvent& event : timeline.events) {
    reply.events.push_back(
        {event.when_us, event.range.offset, event.range.length, std::string(name_of(event.how)), event.zeros});
  }
  reply.left_out += timeline.left_out;
}

void add_timeline(TraceReply& reply, const MappedPlan& plan) {
  const size_t room = ArrivalTrace::kFirst + ArrivalTrace::kLast - reply.events.size();
  const size_t shown = std::min(plan.runs.size(), room);
  std::vector<TraceReply::Event> events;
  events.reserve(shown + reply.events.size());
  for (const MappedRun& run : std::span(plan.runs).first(shown)) {
    events.push_back({0, run.offset, run.length, std::string(name_of(way_of(run))), false});
  }
  std::ranges::move(reply.events, std::back_inserter(events));
  reply.events = std::move(events);
  reply.left_out += plan.runs.size() - shown;
}

}  // namespace stasis::supervisor
