#include "supervisor/pager_words.h"

#include <gtest/gtest.h>

#include "snapshot/testing/fixtures.h"

namespace stasis::supervisor {
namespace {

using namespace snapshot;
using snapshot::testing::blocks;
using Faults = PagerReport::Faults;
using Pages = PagerReport::Pages;
using Source = PagerReport::Source;

// Blocks 0 to 31 of 64 are in a layer, the third of them in one of its own.
class PagerWordsTest : public ::testing::Test {
 protected:
  LayerId write_layer(Range range) {
    const LayerId id = LayerId::random();
    auto writer = LayerWriter::create(real_file_system(), dir_.path(), id, 64 * kBlockSize);
    EXPECT_TRUE((*writer)->write(range.offset, std::vector<std::byte>(range.length, std::byte{1})));
    EXPECT_TRUE((*writer)->finish());
    return id;
  }
  void SetUp() override {
    const std::array first{Change{blocks(0, 32), false}};
    const std::array second{Change{blocks(2, 1), false}};
    auto map = BlockMap::zeros(64 * kBlockSize)->merge(old_, first)->merge(new_, second);
    memory_ = AddressSpace::open(real_file_system(), dir_.path(), std::move(*map)).value();
  }

  stasis::testing::TempDir dir_;
  const LayerId old_ = write_layer(blocks(0, 32));
  const LayerId new_ = write_layer(blocks(2, 1));
  std::shared_ptr<const AddressSpace> memory_;
};

TEST_F(PagerWordsTest, OfAPageServer) {
  pager::Activity activity(memory_->map());
  activity.begin_fault(pager::FaultKind::kWrite, pager::FaultCause::kAbsent, activity.batch(2));
  activity.came(blocks(4, 1), false);
  activity.by(pager::Arrival::kAround);
  activity.came(blocks(40, 3), true);
  activity.by(pager::Arrival::kPrefetch);
  activity.came(blocks(5, 4), false);
  activity.by(pager::Arrival::kBackground);
  activity.came(blocks(9, 5), false);
  activity.set_parked(7);
  activity.set_prefetch_left(8192);
  activity.set_load_left(4096);
  pager::ActivityStats stats = activity.stats();
  stats.fetching = 6;
  const PagerReport report = report_of(stats);
  EXPECT_EQ(report.faults, (std::vector<Faults>{{"write", "absent", "copied", 1}}));
  EXPECT_EQ(
      report.pages,
      (std::vector<Pages>{{"fault", false, 1}, {"around", true, 3}, {"prefetch", false, 4}, {"background", false, 5}}));
  EXPECT_EQ(report.sources,
            (std::vector<Source>{{PagerReport::kZeros, 3 * kBlockSize}, {old_.text(), 10 * kBlockSize}}));
  EXPECT_EQ(report.parked, 7U);
  EXPECT_EQ(report.fetching, 6U);
  EXPECT_EQ(report.prefetch_left, 8192U);
  EXPECT_EQ(report.load_left, 4096U);
  EXPECT_EQ(report.largest_batch, 2U);
  EXPECT_EQ(report.service.size(), pager::kServiceBuckets);
  TraceReply trace;
  add_timeline(trace, activity.timeline());
  ASSERT_EQ(trace.events.size(), 4U);
  EXPECT_EQ(trace.events[0].how, "fault");
  EXPECT_EQ(trace.events[1].offset, 40 * kBlockSize);
  EXPECT_EQ(trace.events[1].length, 3 * kBlockSize);
  EXPECT_TRUE(trace.events[1].zeros);
}

TEST_F(PagerWordsTest, OfBackgroundLoading) {
  const auto told = [](const pager::LoadReport& load) {
    TraceReply trace;
    add_load(trace, load);
    return std::pair(trace.load, trace.load_error);
  };
  using pager::LoadState;
  EXPECT_EQ(told({}), std::pair(std::string(), std::string()));
  EXPECT_EQ(told({LoadState::kLoading, {}}), std::pair(std::string(kLoading), std::string()));
  EXPECT_EQ(told({LoadState::kComplete, {}}), std::pair(std::string(kLoadComplete), std::string()));
  EXPECT_EQ(told({LoadState::kEnded, Error{Code::kDataLoss, "damaged"}}),
            std::pair(std::string(kLoadEnded), std::string("damaged")));
}

TEST_F(PagerWordsTest, OfAMapping) {
  const auto plan = pager::plan_mapping(memory_, [](LayerId) { return true; }, {.mappings = 1000});
  const PagerReport report = report_of(plan);
  EXPECT_EQ(report.faults.size(), 0U);
  // Before the single block two, behind it 29: short runs are copied.
  EXPECT_EQ(report.pages, (std::vector<Pages>{{"mapped", false, 29}, {"copied", false, 3}}));
  uint64_t bytes = 0;
  for (const auto& source : report.sources) bytes += source.bytes;
  EXPECT_EQ(bytes, 32 * kBlockSize);
  TraceReply trace;
  add_timeline(trace, plan);
  EXPECT_EQ(trace.events, (std::vector<TraceReply::Event>{{0, 0, 2 * kBlockSize, "copied", false},
                                                          {0, 2 * kBlockSize, kBlockSize, "copied", false},
                                                          {0, 3 * kBlockSize, 29 * kBlockSize, "mapped", false}}));
  EXPECT_EQ(trace.left_out, 0U);
}

TEST_F(PagerWordsTest, OfAMemoryThatIsMappedInPart) {
  pager::MappedPlan plan = pager::plan_mapping(memory_, [](LayerId) { return true; }, {.mappings = 1000});
  TraceReply trace;
  add_timeline(trace, pager::Timeline{{{7, {0, kBlockSize}, pager::Arrival::kFault, false}}, 5});
  add_timeline(trace, plan);
  ASSERT_EQ(trace.events.size(), 4U);
  EXPECT_EQ(trace.events.front().how, "copied");
  EXPECT_EQ(trace.events.back(), (TraceReply::Event{7, 0, kBlockSize, "fault", false}));
  EXPECT_EQ(trace.left_out, 5U);
  plan.runs.resize(2 * pager::ArrivalTrace::kFirst + 100);
  TraceReply full;
  add_timeline(full, pager::Timeline{{{7, {0, kBlockSize}, pager::Arrival::kFault, false}}, 5});
  add_timeline(full, plan);
  EXPECT_EQ(full.events.size(), 2 * pager::ArrivalTrace::kFirst);
  EXPECT_EQ(full.left_out, 5U + 101U);
}

}  // namespace
}  // namespace stasis::supervisor
