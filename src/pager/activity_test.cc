#include "pager/activity.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

namespace stasis::pager {
namespace {

using snapshot::BlockMap;
using snapshot::Change;
using snapshot::kBlockSize;
using snapshot::LayerId;
using ::testing::ElementsAre;
using namespace std::chrono_literals;

Range blocks(uint64_t first, uint64_t count) { return {first * kBlockSize, count * kBlockSize}; }

ArrivalEvent event(uint64_t number) {
  return {static_cast<uint32_t>(number), blocks(3 * number, number % 64 + 1), static_cast<Arrival>(number % kArrivals),
          number % 2 == 0};
}

TEST(ArrivalTraceTest, TheFirstAndTheLastStay) {
  constexpr uint64_t kAll = ArrivalTrace::kFirst + ArrivalTrace::kLast;
  ArrivalTrace trace;
  EXPECT_EQ(trace.read().events.size(), 0U);
  for (uint64_t i = 0; i < 3; ++i) trace.add(event(i));
  EXPECT_THAT(trace.read().events, ElementsAre(event(0), event(1), event(2)));
  for (uint64_t i = 3; i < kAll + 1000; ++i) trace.add(event(i));
  const Timeline timeline = trace.read();
  // One less than there is room for: the place of the oldest may just be written over.
  ASSERT_EQ(timeline.events.size(), kAll - 1);
  EXPECT_EQ(timeline.left_out, 1001U);
  for (uint64_t i = 0; i < ArrivalTrace::kFirst; ++i) ASSERT_EQ(timeline.events[i], event(i)) << i;
  for (uint64_t i = ArrivalTrace::kFirst; i < kAll - 1; ++i) ASSERT_EQ(timeline.events[i], event(i + 1001)) << i;
}

TEST(ArrivalTraceTest, TheLargestAddressSpaceFits) {
  ArrivalTrace trace;
  const ArrivalEvent last{UINT32_MAX, {snapshot::kMaxAddressSpace - kBlockSize, kBlockSize}, Arrival::kMapped, true};
  trace.add(last);
  EXPECT_THAT(trace.read().events, ElementsAre(last));
}

TEST(ArrivalTraceTest, WhoReadsMeanwhileSeesWholeEventsInOrder) {
  ArrivalTrace trace;
  std::atomic<bool> done{false};
  std::thread writer([&] {
    for (uint64_t i = 0; i < 200'000; ++i) trace.add(event(i));
    done = true;
  });
  size_t readings = 0;
  do {
    const Timeline timeline = trace.read();
    uint64_t least = 0;
    for (const ArrivalEvent& one : timeline.events) {
      ASSERT_EQ(one, event(one.when_us));
      ASSERT_GE(one.when_us, least);
      least = one.when_us + 1;
    }
    ++readings;
  } while (!done || readings < 2);
  writer.join();
  EXPECT_EQ(trace.read().events.back(), event(199'999));
}

TEST(ActivityTest, ServiceTimesFallIntoPowersOfTwo) {
  EXPECT_EQ(service_bucket(-5ns), 0U);
  EXPECT_EQ(service_bucket(999ns), 0U);
  EXPECT_EQ(service_bucket(1us), 1U);
  EXPECT_EQ(service_bucket(1999ns), 1U);
  EXPECT_EQ(service_bucket(2us), 2U);
  EXPECT_EQ(service_bucket(7us), 3U);
  EXPECT_EQ(service_bucket(1s), 20U);
  EXPECT_EQ(service_bucket(2s), kServiceBuckets - 1);
  EXPECT_EQ(service_bucket(1h), kServiceBuckets - 1);
}

class CountedTest : public ::testing::Test {
 protected:
  uint64_t faults(FaultKind kind, FaultCause cause, FaultOutcome outcome) const {
    return activity_.stats()
        .faults[static_cast<size_t>(kind)][static_cast<size_t>(cause)][static_cast<size_t>(outcome)];
  }
  uint64_t bytes_of(LayerId layer) const {
    for (const auto& source : activity_.stats().sources) {
      if (source.layer == layer) return source.bytes;
    }
    return 0;
  }

  const LayerId old_ = LayerId::random();
  const LayerId new_ = LayerId::random();
  const std::array<Change, 1> first_{Change{blocks(0, 64), false}};
  const std::array<Change, 1> second_{Change{blocks(16, 8), false}};
  const BlockMap map_ = BlockMap::zeros(128 * kBlockSize)->merge(old_, first_)->merge(new_, second_).value();
  Activity activity_{map_};
};

TEST_F(CountedTest, AFaultIsSettledByTheFirstPageThatComes) {
  activity_.begin_fault(FaultKind::kWrite, FaultCause::kAbsent, activity_.batch(3));
  EXPECT_EQ(faults(FaultKind::kWrite, FaultCause::kAbsent, FaultOutcome::kCopied), 0U);
  activity_.came(blocks(5, 1), false);
  activity_.by(Arrival::kAround);
  activity_.came(blocks(6, 10), false);
  activity_.begin_fault(FaultKind::kRead, FaultCause::kRemoved, activity_.batch(1));
  activity_.came(blocks(7, 1), true);
  activity_.begin_fault(FaultKind::kRead, FaultCause::kPresent, activity_.batch(2));
  activity_.was_there();
  activity_.begin_fault(FaultKind::kRead, FaultCause::kAbsent, activity_.batch(1));
  activity_.fault_failed();
  EXPECT_EQ(faults(FaultKind::kWrite, FaultCause::kAbsent, FaultOutcome::kCopied), 1U);
  EXPECT_EQ(faults(FaultKind::kRead, FaultCause::kRemoved, FaultOutcome::kZeroed), 1U);
  EXPECT_EQ(faults(FaultKind::kRead, FaultCause::kPresent, FaultOutcome::kWoken), 1U);
  EXPECT_EQ(faults(FaultKind::kRead, FaultCause::kAbsent, FaultOutcome::kFailed), 1U);
  const ActivityStats stats = activity_.stats();
  uint64_t settled = 0;
  for (const uint64_t count : stats.service) settled += count;
  EXPECT_EQ(settled, 4U);
  EXPECT_EQ(stats.largest_batch, 3U);
  EXPECT_EQ(stats.pages_of(Arrival::kFault, false), 1U);
  EXPECT_EQ(stats.pages_of(Arrival::kAround, false), 10U);
  EXPECT_EQ(stats.pages_of(Arrival::kFault, true), 1U);
}

TEST_F(CountedTest, AParkedFaultIsSettledWhenItIsAnsweredAgain) {
  const auto since = activity_.batch(1) - 3s;
  activity_.begin_fault(FaultKind::kRead, FaultCause::kAbsent, since);
  activity_.set_parked(1);
  EXPECT_EQ(activity_.stats().parked, 1U);
  activity_.by(Arrival::kPrefetch);
  activity_.came(blocks(0, 4), false);
  EXPECT_EQ(faults(FaultKind::kRead, FaultCause::kAbsent, FaultOutcome::kCopied), 0U) << "taken for the fault's page";
  activity_.begin_fault(FaultKind::kRead, FaultCause::kAbsent, since);
  activity_.came(blocks(9, 1), false);
  EXPECT_EQ(faults(FaultKind::kRead, FaultCause::kAbsent, FaultOutcome::kCopied), 1U);
  EXPECT_EQ(activity_.stats().service.back(), 1U) << "the time it waited counts";
}

TEST_F(CountedTest, BytesAreToldByLayer) {
  activity_.came(blocks(0, 4), false);
  activity_.came(blocks(16, 2), false);
  activity_.came(blocks(100, 3), true);
  EXPECT_EQ(bytes_of(old_), 4 * kBlockSize);
  EXPECT_EQ(bytes_of(new_), 2 * kBlockSize);
  EXPECT_EQ(bytes_of(LayerId{}), 3 * kBlockSize);
  activity_.came(blocks(0, 128), false);  // as a huge page comes: whatever it holds
  EXPECT_EQ(bytes_of(old_), (4 + 56) * kBlockSize);
  EXPECT_EQ(bytes_of(new_), (2 + 8) * kBlockSize);
  EXPECT_EQ(bytes_of(LayerId{}), (3 + 64) * kBlockSize);
}

}  // namespace
}  // namespace stasis::pager
