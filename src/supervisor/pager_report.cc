#include "supervisor/pager_report.h"

#include <algorithm>
#include <tuple>

namespace stasis::supervisor {
namespace {

using nlohmann::json;

// Adds `more` to the row that has the same words, or as a new one.
template <typename Row, typename Same>
void add_row(std::vector<Row>& rows, const Row& more, uint64_t Row::*count, Same same) {
  const auto found = std::ranges::find_if(rows, [&](const Row& row) { return same(row) == same(more); });
  if (found == rows.end()) {
    rows.push_back(more);
  } else {
    (*found).*count += more.*count;
  }
}

template <typename... Fields>
std::vector<std::tuple<Fields...>> rows_of(const json& object, const char* name) {
  return object.at(name).get<std::vector<std::tuple<Fields...>>>();
}

// The library's own exceptions stay here.
template <typename Reply, typename Read>
Result<Reply> decoded(const char* what, Read read) {
  try {
    return read();
  } catch (const json::exception& error) {
    return fail(Code::kInvalidArgument, std::string(what) + ": " + error.what());
  }
}

PagerReport read_report(const json& object) {
  PagerReport report;
  for (auto& [kind, cause, outcome, count] : rows_of<std::string, std::string, std::string, uint64_t>(object, "faults"))
    report.faults.push_back({std::move(kind), std::move(cause), std::move(outcome), count});
  report.service = object.at("service").get<std::vector<uint64_t>>();
  report.service_ns = object.at("service_ns").get<uint64_t>();
  for (auto& [how, zeros, pages] : rows_of<std::string, bool, uint64_t>(object, "pages"))
    report.pages.push_back({std::move(how), zeros, pages});
  for (auto& [layer, bytes] : rows_of<std::string, uint64_t>(object, "sources"))
    report.sources.push_back({std::move(layer), bytes});
  report.parked = object.at("parked").get<uint64_t>();
  report.prefetch_left = object.at("prefetch_left").get<uint64_t>();
  report.largest_batch = object.at("largest_batch").get<uint64_t>();
  // A supervisor that is older does not tell these.
  report.load_left = object.value("load_left", uint64_t{0});
  report.fetching = object.value("fetching", uint64_t{0});
  return report;
}

}  // namespace

void add_to(PagerReport& sum, const PagerReport& more, bool layers_apart) {
  for (const PagerReport::Faults& row : more.faults) {
    add_row(sum.faults, row, &PagerReport::Faults::count,
            [](const auto& one) { return std::tie(one.kind, one.cause, one.outcome); });
  }
  sum.service.resize(std::max(sum.service.size(), more.service.size()));
  for (size_t i = 0; i < more.service.size(); ++i) sum.service[i] += more.service[i];
  sum.service_ns += more.service_ns;
  for (const PagerReport::Pages& row : more.pages) {
    add_row(sum.pages, row, &PagerReport::Pages::pages, [](const auto& one) { return std::tie(one.how, one.zeros); });
  }
  for (PagerReport::Source row : more.sources) {
    if (!layers_apart && row.layer != PagerReport::kZeros) row.layer = PagerReport::kAnyLayer;
    add_row(sum.sources, row, &PagerReport::Source::bytes, [](const auto& one) { return one.layer; });
  }
  sum.parked += more.parked;
  sum.prefetch_left += more.prefetch_left;
  sum.load_left += more.load_left;
  sum.fetching += more.fetching;
  sum.largest_batch = std::max(sum.largest_batch, more.largest_batch);
}

uint64_t service_quantile_us(const std::vector<uint64_t>& service, double part) {
  uint64_t all = 0;
  for (const uint64_t count : service) all += count;
  uint64_t below = 0;
  for (size_t i = 0; i < service.size(); ++i) {
    below += service[i];
    if (below > 0 && static_cast<double>(below) >= part * static_cast<double>(all))
      return uint64_t{1} << std::min<size_t>(i, 63);
  }
  return 0;
}

json to_json(const PagerReport& report) {
  json faults = json::array();
  for (const auto& row : report.faults) faults.push_back({row.kind, row.cause, row.outcome, row.count});
  json pages = json::array();
  for (const auto& row : report.pages) pages.push_back({row.how, row.zeros, row.pages});
  json sources = json::array();
  for (const auto& row : report.sources) sources.push_back(json::array({row.layer, row.bytes}));
  return {{"faults", std::move(faults)},           {"service", report.service},
          {"service_ns", report.service_ns},       {"pages", std::move(pages)},
          {"sources", std::move(sources)},         {"parked", report.parked},
          {"prefetch_left", report.prefetch_left}, {"largest_batch", report.largest_batch},
          {"load_left", report.load_left},         {"fetching", report.fetching}};
}

json to_json(const TraceReply& reply) {
  json events = json::array();
  for (const auto& event : reply.events) {
    events.push_back({event.when_us, event.offset, event.length, event.how, event.zeros});
  }
  return {{"method", reply.method},          {"reason", reply.reason},     {"total_pages", reply.total_pages},
          {"report", to_json(reply.report)}, {"load", reply.load},         {"load_error", reply.load_error},
          {"events", std::move(events)},     {"left_out", reply.left_out}, {"spare", reply.spare}};
}

Result<PagerReport> report_from_json(const json& object) {
  return decoded<PagerReport>("supervisor's pager report", [&] { return read_report(object); });
}

Result<TraceReply> trace_from_json(const json& object) {
  return decoded<TraceReply>("supervisor's trace", [&] {
    TraceReply reply;
    reply.method = object.at("method").get<std::string>();
    reply.reason = object.at("reason").get<std::string>();
    reply.total_pages = object.at("total_pages").get<uint64_t>();
    reply.report = read_report(object.at("report"));
    reply.load = object.value("load", "");
    reply.load_error = object.value("load_error", "");
    for (auto& [when_us, offset, length, how, zeros] :
         rows_of<uint32_t, uint64_t, uint64_t, std::string, bool>(object, "events")) {
      reply.events.push_back({when_us, offset, length, std::move(how), zeros});
    }
    reply.left_out = object.at("left_out").get<uint64_t>();
    reply.spare = object.value("spare", false);
    return reply;
  });
}

}  // namespace stasis::supervisor
