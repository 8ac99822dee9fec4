#include "server/pager_metrics.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <utility>

namespace stasis::server {
namespace {

using ::testing::HasSubstr;

constexpr std::array kWays{"fault", "around", "prefetch", "background", "mapped", "copied"};

TEST(PagerMetrics, FaultsAreToldByKindCauseAndOutcome) {
  pb::PagerMetrics metrics;
  std::string expected;
  uint64_t count = 100;
  for (const char* kind : {"read", "write"}) {
    for (const char* cause : {"absent", "removed", "present"}) {
      for (const char* outcome : {"copied", "zeroed", "woken", "failed"}) {
        pb::FaultCount* row = metrics.add_faults();
        row->set_kind(kind);
        row->set_cause(cause);
        row->set_outcome(outcome);
        row->set_count(++count);
        expected += fmt::format("stasis_pager_faults_total{{kind=\"{}\",cause=\"{}\",outcome=\"{}\"}} {}\n", kind,
                                cause, outcome, count);
      }
    }
  }
  EXPECT_THAT(pager_metrics_text(&metrics), HasSubstr("# TYPE stasis_pager_faults_total counter\n" + expected));
}

TEST(PagerMetrics, TheTimesOfFaultsAreAHistogramThatAddsUp) {
  pb::PagerMetrics metrics;
  for (const uint64_t count : {1, 20, 300, 4000}) metrics.add_service_buckets(count);
  metrics.set_service_ns(1'234'567'891);
  EXPECT_THAT(pager_metrics_text(&metrics), HasSubstr("# TYPE stasis_pager_fault_seconds histogram\n"
                                                      "stasis_pager_fault_seconds_bucket{le=\"0.000001\"} 1\n"
                                                      "stasis_pager_fault_seconds_bucket{le=\"0.000002\"} 21\n"
                                                      "stasis_pager_fault_seconds_bucket{le=\"0.000004\"} 321\n"
                                                      "stasis_pager_fault_seconds_bucket{le=\"+Inf\"} 4321\n"
                                                      "stasis_pager_fault_seconds_sum 1.234567891\n"
                                                      "stasis_pager_fault_seconds_count 4321\n"));
}

TEST(PagerMetrics, PagesAreToldByTheirWayAndBytesByTheirSource) {
  pb::PagerMetrics metrics;
  std::string pages;
  uint64_t count = 200;
  for (const char* how : kWays) {
    for (const bool zeros : {false, true}) {
      pb::PagesCame* row = metrics.add_pages();
      row->set_how(how);
      row->set_zeros(zeros);
      row->set_pages(++count);
      pages += fmt::format("stasis_pager_pages_total{{how=\"{}\",source=\"{}\"}} {}\n", how, zeros ? "zeros" : "layers",
                           count);
    }
  }
  for (const auto& [source, bytes] : {std::pair("zeros", 301), std::pair("layers", 302)}) {
    pb::SourceBytes* row = metrics.add_sources();
    row->set_layer(source);
    row->set_bytes(static_cast<uint64_t>(bytes));
  }
  const std::string text = pager_metrics_text(&metrics);
  EXPECT_THAT(text, HasSubstr("# TYPE stasis_pager_pages_total counter\n" + pages));
  EXPECT_THAT(text, HasSubstr("# TYPE stasis_pager_bytes_total counter\n"
                              "stasis_pager_bytes_total{source=\"zeros\"} 301\n"
                              "stasis_pager_bytes_total{source=\"layers\"} 302\n"));
}

TEST(PagerMetrics, QueuesAreGauges) {
  pb::PagerMetrics metrics;
  metrics.set_parked(401);
  metrics.set_prefetch_left_bytes(402);
  metrics.set_load_left_bytes(403);
  metrics.set_largest_batch(404);
  metrics.set_fetching_frames(405);
  const std::string text = pager_metrics_text(&metrics);
  EXPECT_THAT(text, HasSubstr("# TYPE stasis_pager_parked_faults gauge\nstasis_pager_parked_faults 401\n"));
  EXPECT_THAT(text, HasSubstr("# TYPE stasis_pager_prefetch_left_bytes gauge\nstasis_pager_prefetch_left_bytes 402\n"));
  EXPECT_THAT(text, HasSubstr("# TYPE stasis_pager_load_left_bytes gauge\nstasis_pager_load_left_bytes 403\n"));
  EXPECT_THAT(text, HasSubstr("# TYPE stasis_pager_fetching_frames gauge\nstasis_pager_fetching_frames 405\n"));
  EXPECT_THAT(text, HasSubstr("# TYPE stasis_pager_largest_batch gauge\nstasis_pager_largest_batch 404\n"));
}

TEST(PagerMetrics, SparesAreToldByWhatBecameOfThem) {
  pb::PagerMetrics metrics;
  pb::SpareCounts& spares = *metrics.mutable_spares();
  spares.set_ready(501);
  spares.set_started(502);
  spares.set_used(503);
  spares.set_failed(504);
  spares.set_dropped(505);
  const std::string text = pager_metrics_text(&metrics);
  EXPECT_THAT(text, HasSubstr("# TYPE stasis_spares gauge\nstasis_spares 501\n"));
  EXPECT_THAT(text, HasSubstr("\nstasis_spares_started_total 502\n"));
  EXPECT_THAT(text, HasSubstr("\nstasis_spares_used_total 503\n"));
  EXPECT_THAT(text, HasSubstr("\nstasis_spares_failed_total 504\n"));
  EXPECT_THAT(text, HasSubstr("\nstasis_spares_dropped_total 505\n"));
}

TEST(PagerMetrics, OfAnAgentThatDoesNotAnswerThereIsOnlyThat) {
  EXPECT_EQ(pager_metrics_text(nullptr),
            "# HELP stasis_host_agent_up Whether the host agent has answered.\n"
            "# TYPE stasis_host_agent_up gauge\nstasis_host_agent_up 0\n");
}

}  // namespace
}  // namespace stasis::server
