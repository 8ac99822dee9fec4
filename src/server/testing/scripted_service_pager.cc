// The calls about page servers.
#include "server/testing/scripted_service.h"

namespace stasis::server::testing {
namespace {

using grpc::Status;

pb::PagerMetrics scripted_metrics(const std::string& layer) {
  pb::PagerMetrics metrics;
  pb::FaultCount* faults = metrics.add_faults();
  faults->set_kind("read");
  faults->set_cause("absent");
  faults->set_outcome("copied");
  faults->set_count(3);
  for (const uint64_t count : {0, 0, 2, 0, 1}) metrics.add_service_buckets(count);
  metrics.set_service_ns(30'000);
  pb::PagesCame* pages = metrics.add_pages();
  pages->set_how("around");
  pages->set_pages(45);
  pb::SourceBytes* zeros = metrics.add_sources();
  zeros->set_layer("zeros");
  zeros->set_bytes(4096);
  pb::SourceBytes* source = metrics.add_sources();
  source->set_layer(layer);
  source->set_bytes(8192);
  metrics.set_parked(2);
  metrics.set_fetching_frames(5);
  metrics.set_largest_batch(6);
  metrics.set_prefetch_left_bytes(12'288);
  metrics.set_load_left_bytes(4096);
  return metrics;
}

}  // namespace

Status ScriptedService::GetPagerMetrics(Context* context, const pb::GetPagerMetricsRequest*, pb::PagerMetrics* reply) {
  return run("GetPagerMetrics", *context, [&]() -> Status {
    *reply = scripted_metrics("layers");
    reply->mutable_spares()->set_ready(1);
    reply->mutable_spares()->set_used(7);
    return Status::OK;
  });
}

Status ScriptedService::GetRestoreTrace(Context* context, const pb::GetRestoreTraceRequest* request,
                                        pb::RestoreTrace* reply) {
  return run("GetRestoreTrace", *context, [&]() -> Status {
    if (!sandboxes_.contains(request->sandbox_id())) return failed(grpc::NOT_FOUND, "no such sandbox");
    reply->set_method("uffd");
    reply->set_reason("it was asked for");
    reply->set_total_pages(65'536);
    *reply->mutable_metrics() = scripted_metrics(kImageId);
    pb::ArrivalEvent* event = reply->add_events();
    event->set_when_us(1500);
    event->set_offset(1 << 20);
    event->set_length(4096);
    event->set_how("fault");
    event->set_zeros(true);
    reply->set_left_out(2);
    reply->set_load("ended");
    reply->set_load_error("damaged");
    reply->set_spare(true);
    return Status::OK;
  });
}

}  // namespace stasis::server::testing
