#include "cli/trace_view.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "cli/session.h"
#include "cli/svg_shapes.h"
#include "cli/table.h"

namespace stasis::cli {
namespace {

constexpr double kPage = 4096;
constexpr double kGib = 1 << 30;

// The ways in which pages come, in the order of their columns. Zeros are a way of their own here.
struct Way {
  const char* name;
  const char* title;
  const char* colour;
};
constexpr std::array<Way, 7> kWays{{{"fault", "FAULT", "#d62728"},
                                    {"around", "AROUND", "#ff9f40"},
                                    {"prefetch", "PREFETCH", "#1f77b4"},
                                    {"background", "BACKGROUND", "#17becf"},
                                    {"mapped", "MAPPED", "#2ca02c"},
                                    {"copied", "COPIED", "#9467bd"},
                                    {"zeros", "ZEROS", "#aaaaaa"}}};
constexpr size_t kZeros = 6;

size_t way_of(const Json& row) {
  const auto zeros = row.find("zeros");
  if (zeros != row.end() && zeros->is_boolean() && zeros->get<bool>()) return kZeros;
  const std::string how = text_field(row, "how");
  const auto found = std::ranges::find_if(kWays, [&](const Way& way) { return how == way.name; });
  return found == kWays.end() ? 0 : static_cast<size_t>(found - kWays.begin());
}

std::array<double, kWays.size()> pages_by_way(const Json& trace) {
  std::array<double, kWays.size()> pages{};
  for (const Json& row : list_field(trace, "pages")) pages[way_of(row)] += number_field(row, "pages");
  return pages;
}

std::string time_text(double us) { return us < 1000 ? fmt::format("{:.0f} us", us) : duration_text(us / 1000); }

void print_times(std::ostream& out, const Json& trace) {
  std::vector<uint64_t> counts;
  uint64_t all = 0;
  for (const Json& count : list_field(trace, "fault_times")) {
    counts.push_back(count.is_number_unsigned() ? count.get<uint64_t>() : 0);
    all += counts.back();
  }
  if (all == 0) return;
  out << fmt::format("{} faults, {} each:", all,
                     time_text(number_field(trace, "fault_total_us") / static_cast<double>(all)));
  for (size_t i = 0; i < counts.size(); ++i) {
    if (counts[i] == 0) continue;
    const bool last = i + 1 == counts.size();
    out << fmt::format("  {} {} {}", counts[i], last ? "over" : "under", time_text(std::exp2(last ? i - 1 : i)));
  }
  out << '\n';
}

void print_faults(std::ostream& out, const Json& trace) {
  Table table({{"FAULTS", true}, {"KIND"}, {"PAGE WAS"}, {"AND WAS"}});
  for (const Json& row : list_field(trace, "faults")) {
    table.add({fmt::format("{:.0f}", number_field(row, "count")), text_field(row, "kind"), text_field(row, "cause"),
               text_field(row, "outcome")});
  }
  if (table.empty()) return;
  out << '\n';
  table.print(out);
}

void print_load(std::ostream& out, const Json& trace) {
  const Json& load = object_field(trace, "load");
  if (load.empty()) return;
  const std::string error = printable(text_field(load, "error"));
  out << fmt::format("background loading: {}, {} left{}\n", printable(text_field(load, "state")),
                     size_field(load, "left_bytes"), error.empty() ? "" : ": " + error);
}

// Pages by the time until which they came: slices grow, because most happens at the start.
void print_slices(std::ostream& out, const Json& trace) {
  std::vector<Column> columns{{"UNTIL", true}};
  for (const Way& way : kWays) columns.push_back({way.title, true});
  Table table(columns);
  std::array<double, kWays.size()> pages{};
  double end = 1000;  // us
  bool any = false;
  const auto add = [&] {
    std::vector<std::string> cells{time_text(end)};
    for (const double count : pages) cells.push_back(count == 0 ? "" : fmt::format("{:.0f}", count));
    if (any) table.add(cells);
    pages = {};
    any = false;
  };
  for (const Json& event : list_field(trace, "events")) {
    const double when = number_field(event, "when_us");
    if (when >= end) add();
    while (when >= end) end *= 2;
    pages[way_of(event)] += number_field(event, "length") / kPage;
    any = true;
  }
  add();
  if (table.empty()) return;
  out << '\n';
  table.print(out);
  if (const double left_out = number_field(trace, "left_out"); left_out > 0) {
    out << fmt::format("({:.0f} arrivals in the middle were not kept)\n", left_out);
  }
}

void print_sources(std::ostream& out, const Json& trace) {
  Table table({{"FROM"}, {"BYTES", true}});
  for (const Json& row : list_field(trace, "sources")) {
    const std::string layer = text_field(row, "layer_id");
    table.add({layer.empty() ? "zeros" : "layer " + layer, size_field(row, "bytes")});
  }
  if (table.empty()) return;
  out << '\n';
  table.print(out);
}

// The picture. Time is logarithmic: the first hundred microseconds are as wide as the last seconds.
constexpr double kLeft = 90;
constexpr double kTop = 70;
constexpr double kWidth = 900;
constexpr double kHeight = 560;
constexpr double kFirstUs = 10;  // all that is earlier is at the edge

struct Scale {
  double last_us;
  double bytes;
  double x(double us) const {
    const double share = std::log(std::max(us, kFirstUs) / kFirstUs) / std::log(last_us / kFirstUs);
    return kLeft + share * kWidth;
  }
  double y(double offset) const { return kTop + offset / bytes * kHeight; }
};

Scale scale_of(const Json& trace) {
  Scale scale{1000, std::max(number_field(trace, "total_pages"), 1.0) * kPage};
  for (const Json& event : list_field(trace, "events")) {
    scale.last_us = std::max(scale.last_us, number_field(event, "when_us"));
  }
  return scale;
}

std::string axes(const Scale& scale) {
  std::string body;
  for (double us = kFirstUs; us <= scale.last_us; us *= 10) {
    body += svg_rectangle(scale.x(us), kTop, 0.5, kHeight, "#dddddd");
    body += svg_text(scale.x(us), kTop + kHeight + 16, time_text(us), " text-anchor=\"middle\"");
  }
  constexpr int kSteps = 8;
  for (int i = 0; i <= kSteps; ++i) {
    const double offset = scale.bytes * i / kSteps;
    body += svg_rectangle(kLeft, scale.y(offset), kWidth, 0.5, "#dddddd");
    const std::string label =
        scale.bytes < kGib ? fmt::format("{:.4g} MiB", offset / (1 << 20)) : fmt::format("{:.4g} GiB", offset / kGib);
    body += svg_text(kLeft - 6, scale.y(offset) + 4, label, " text-anchor=\"end\"");
  }
  return body;
}

std::string legend(const Json& trace) {
  const auto pages = pages_by_way(trace);
  std::string body;
  double x = kLeft;
  for (size_t i = 0; i < kWays.size(); ++i) {
    if (pages[i] == 0) continue;
    const std::string text = fmt::format("{}: {:.0f} pages", kWays[i].name, pages[i]);
    body += svg_rectangle(x, kTop - 26, 12, 12, kWays[i].colour) + svg_text(x + 17, kTop - 15, text);
    x += 45 + 7 * static_cast<double>(text.size());
  }
  return body;
}

}  // namespace

void print_trace(std::ostream& out, const Json& trace) {
  const std::string id = printable(text_field(trace, "sandbox_id"));
  const std::string method = printable(text_field(trace, "method"));
  if (method.empty()) {
    out << id << " was booted: no memory of it had to come back\n";
    return;
  }
  double came = 0;
  for (const double pages : pages_by_way(trace)) came += pages;
  out << fmt::format("{}: {}{}; {:.0f} of {:.0f} pages came\n", id, method,
                     text_field(trace, "reason").empty() ? "" : " (" + printable(text_field(trace, "reason")) + ")",
                     came, number_field(trace, "total_pages"));
  print_load(out, trace);
  print_times(out, trace);
  print_faults(out, trace);
  print_slices(out, trace);
  print_sources(out, trace);
}

std::string trace_svg(const Json& trace) {
  const Scale scale = scale_of(trace);
  std::string body =
      svg_text(kLeft, 28,
               fmt::format("{}: restored by {}, guest address against time since the memory was handed over",
                           text_field(trace, "sandbox_id"), text_field(trace, "method")),
               " font-size=\"16\"");
  body += legend(trace) + axes(scale);
  for (const Json& event : list_field(trace, "events")) {
    const double height = number_field(event, "length") / scale.bytes * kHeight;
    body += svg_rectangle(scale.x(number_field(event, "when_us")) - 1, scale.y(number_field(event, "offset")), 2,
                          std::max(height, 1.0), kWays[way_of(event)].colour);
  }
  return svg_document(static_cast<int>(kLeft + kWidth) + 40, static_cast<int>(kTop + kHeight) + 40, body);
}

}  // namespace stasis::cli
