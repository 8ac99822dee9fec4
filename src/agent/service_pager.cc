// HostAgent: what the page servers have done.
#include "agent/service.h"

namespace stasis::agent {
namespace {

void fill(v1::PagerMetrics* out, const supervisor::PagerReport& report) {
  for (const auto& row : report.faults) {
    v1::FaultCount* faults = out->add_faults();
    faults->set_kind(row.kind);
    faults->set_cause(row.cause);
    faults->set_outcome(row.outcome);
    faults->set_count(row.count);
  }
  out->mutable_service_buckets()->Assign(report.service.begin(), report.service.end());
  out->set_service_ns(report.service_ns);
  for (const auto& row : report.pages) {
    v1::PagesCame* pages = out->add_pages();
    pages->set_how(row.how);
    pages->set_zeros(row.zeros);
    pages->set_pages(row.pages);
  }
  for (const auto& row : report.sources) {
    v1::SourceBytes* source = out->add_sources();
    source->set_layer(row.layer);
    source->set_bytes(row.bytes);
  }
  out->set_parked(report.parked);
  out->set_prefetch_left_bytes(report.prefetch_left);
  out->set_largest_batch(report.largest_batch);
  out->set_load_left_bytes(report.load_left);
  out->set_fetching_frames(report.fetching);
}

}  // namespace

grpc::Status Service::GetPagerMetrics(Context*, const v1::GetPagerMetricsRequest*, v1::PagerMetrics* reply) {
  fill(reply, host_.pager_report());
  const SpareCounts counts = host_.spare_counts();
  v1::SpareCounts* spares = reply->mutable_spares();
  spares->set_ready(counts.ready);
  spares->set_started(counts.started);
  spares->set_used(counts.used);
  spares->set_failed(counts.failed);
  spares->set_dropped(counts.dropped);
  return grpc::Status::OK;
}

grpc::Status Service::GetRestoreTrace(Context* context, const v1::GetRestoreTraceRequest* request,
                                      v1::RestoreTrace* reply) {
  const auto trace = host_.trace(request->sandbox_id());
  if (!trace) return answer(context, trace.error());
  reply->set_method(trace->method);
  reply->set_reason(trace->reason);
  reply->set_total_pages(trace->total_pages);
  fill(reply->mutable_metrics(), trace->report);
  for (const auto& event : trace->events) {
    v1::ArrivalEvent* out = reply->add_events();
    out->set_when_us(event.when_us);
    out->set_offset(event.offset);
    out->set_length(event.length);
    out->set_how(event.how);
    out->set_zeros(event.zeros);
  }
  reply->set_left_out(trace->left_out);
  reply->set_load(trace->load);
  reply->set_load_error(trace->load_error);
  reply->set_spare(trace->spare);
  return grpc::Status::OK;
}

}  // namespace stasis::agent
