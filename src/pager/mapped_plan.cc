#include "pager/mapped_plan.h"

#include <algorithm>
#include <numeric>
#include <span>
#include <string>

#include "base/process_memory.h"
#include "snapshot/ranges.h"

namespace stasis::pager {
namespace {

using snapshot::AddressSpace;
using snapshot::Extent;
using snapshot::kBlockSize;
using snapshot::Layer;
using snapshot::LayerId;

// QEMU has some 300 mappings of its own; what it will map later is not known here.
constexpr uint64_t kMarginOfMappings = 16'384;
// Mapping so little costs a process as much time as copying it, and two mappings instead of some memory.
constexpr uint64_t kShortRun = 2 * kBlockSize;
// As long as it is not much: copied pages are not shared between clones.
constexpr uint64_t kShortRunsBytes = 128 << 10;

std::string mebibytes(uint64_t bytes) { return std::to_string(bytes >> 20) + " MiB"; }

using IsWhole = std::function<bool(LayerId)>;

// None: it can be.
std::optional<Error> why_not_mapped(const Layer& layer, const IsWhole& is_whole) {
  const std::string name = "layer " + layer.id().text();
  if (!layer.can_be_mapped()) return Error{Code::kFailedPrecondition, name + " is compressed", "compact the snapshot"};
  if (is_whole(layer.id())) return std::nullopt;
  return Error{Code::kFailedPrecondition, name + " has been neither written nor verified by this host since it booted",
               "verify the snapshot"};
}

Error too_many_layers(size_t layers, const MappingLimits& limits) {
  return {Code::kFailedPrecondition,
          "the memory is in " + std::to_string(layers) + " layers, of which " + std::to_string(limits.layers) +
              " can be mapped",
          "compact the snapshot"};
}

Error too_many_pieces(size_t pieces, uint64_t bytes) {
  return {Code::kFailedPrecondition,
          "the memory is in " + std::to_string(pieces) + " pieces; a process may have too few mappings, " +
              mebibytes(bytes) + " would have to be copied",
          "compact the snapshot, or raise vm.max_map_count"};
}

template <typename Before>
std::vector<uint32_t> in_order(size_t count, Before before) {
  std::vector<uint32_t> order(count);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), before);
  return order;
}

std::vector<uint32_t> shortest_first(const std::vector<MappedRun>& runs) {
  return in_order(runs.size(), [&](uint32_t a, uint32_t b) { return runs[a].length < runs[b].length; });
}

// All that layers hold, as runs.
MappedPlan runs_of(std::shared_ptr<const AddressSpace> memory) {
  MappedPlan plan;
  const auto ids = memory->map().layers();
  for (const LayerId id : ids) plan.layers.push_back(memory->layer(id));
  for (const Extent& extent : memory->map().extents()) {
    if (extent.is_zero()) continue;
    const auto layer = static_cast<uint32_t>(std::find(ids.begin(), ids.end(), extent.layer) - ids.begin());
    plan.runs.push_back({extent.offset, extent.length, extent.layer_offset, layer, false});
  }
  plan.memory = std::move(memory);
  return plan;
}

// Moves the runs for which this is true to what is served.
void serve(MappedPlan& plan, const std::vector<bool>& which, Error why) {
  std::vector<MappedRun> kept;
  std::vector<Range> served;
  for (size_t i = 0; i < plan.runs.size(); ++i) {
    const MappedRun& run = plan.runs[i];
    if (which[i]) append_range(served, {run.offset, run.length});
    if (!which[i]) kept.push_back(run);
  }
  if (served.empty()) return;
  plan.runs = std::move(kept);
  plan.served = snapshot::unite(plan.served, served);
  if (!plan.not_mapped) plan.not_mapped = std::move(why);
}

void serve_layers(MappedPlan& plan, const std::vector<bool>& layers, Error why) {
  std::vector<bool> runs;
  runs.reserve(plan.runs.size());
  for (const MappedRun& run : plan.runs) runs.push_back(layers[run.layer]);
  serve(plan, runs, std::move(why));
}

// Layers that cannot be mapped.
void serve_others(MappedPlan& plan, const IsWhole& is_whole) {
  std::vector<bool> others;
  std::optional<Error> first;
  for (const Layer* layer : plan.layers) {
    std::optional<Error> why = why_not_mapped(*layer, is_whole);
    others.push_back(why.has_value());
    if (why && !first) first = std::move(why);
  }
  if (!first) return;
  const auto more = std::ranges::count(others, true) - 1;
  if (more > 0) first->message += ", and " + std::to_string(more) + " more cannot be mapped either";
  serve_layers(plan, others, std::move(*first));
}

// Of too many layers those of which the least would be mapped.
void serve_small_layers(MappedPlan& plan, const MappingLimits& limits) {
  if (plan.layers.size() <= limits.layers) return;
  std::vector<uint64_t> bytes(plan.layers.size());
  for (const MappedRun& run : plan.runs) bytes[run.layer] += run.length;
  const auto used = static_cast<size_t>(std::ranges::count_if(bytes, [](uint64_t n) { return n > 0; }));
  if (used <= limits.layers) return;
  const auto order = in_order(bytes.size(), [&](uint32_t a, uint32_t b) { return bytes[a] > bytes[b]; });
  std::vector<bool> small(bytes.size());
  for (const uint32_t layer : std::span(order).subspan(limits.layers)) small[layer] = true;
  serve_layers(plan, small, too_many_layers(plan.layers.size(), limits));
}

// A mapping splits the anonymous memory around it, so it counts twice; so does a region that is served.
uint64_t most_mapped(const MappingLimits& limits, bool served) {
  const uint64_t most = limits.mappings / 2;
  return most - std::min(most, served ? limits.regions : 0);
}

// The runs for which there is no mapping.
struct Excess {
  std::vector<uint32_t> shortest;
  size_t copied = 0;   // so many of these may be
  uint64_t bytes = 0;  // of all of these
};

Excess excess_of(const MappedPlan& plan, const MappingLimits& limits, bool served) {
  Excess excess;
  const uint64_t most = most_mapped(limits, served);
  if (plan.runs.size() <= most) return excess;
  excess.shortest = shortest_first(plan.runs);
  excess.shortest.resize(plan.runs.size() - most);
  for (const uint32_t index : excess.shortest) {
    excess.bytes += plan.runs[index].length;
    if (excess.bytes <= limits.copied_bytes) ++excess.copied;
  }
  return excess;
}

void serve_excess(MappedPlan& plan, const MappingLimits& limits) {
  Excess excess = excess_of(plan, limits, plan.is_served());
  if (excess.copied == excess.shortest.size()) return;
  const Error why = too_many_pieces(plan.runs.size() + plan.served.size(), excess.bytes);
  if (!plan.is_served()) excess = excess_of(plan, limits, true);
  std::vector<bool> which(plan.runs.size());
  for (const uint32_t index : std::span(excess.shortest).subspan(excess.copied)) which[index] = true;
  serve(plan, which, why);
}

// Closes the shortest gaps. What lies in a gap lies in it whole, since runs and what is served are disjoint.
void join_served(MappedPlan& plan, const MappingLimits& limits) {
  if (plan.served.size() <= limits.regions) return;
  const auto gap = [&](uint32_t i) { return plan.served[i + 1].offset - plan.served[i].end(); };
  const auto order = in_order(plan.served.size() - 1, [&](uint32_t a, uint32_t b) { return gap(a) < gap(b); });
  std::vector<Range> closed;
  for (const uint32_t i : std::span(order).first(plan.served.size() - limits.regions)) {
    closed.push_back({plan.served[i].end(), gap(i)});
  }
  std::ranges::sort(closed, {}, &Range::offset);
  plan.served = snapshot::unite(plan.served, closed);
  std::erase_if(plan.runs, [&](const MappedRun& run) {
    const auto after = std::ranges::upper_bound(plan.served, run.offset, {}, &Range::offset);
    return after != plan.served.begin() && run.offset < std::prev(after)->end();
  });
}

// Shortest first: the short ones as long as they are little, and whatever is too much for the limit.
void choose_copied(MappedPlan& plan, const MappingLimits& limits) {
  const uint64_t most = most_mapped(limits, plan.is_served());
  const uint64_t too_many = plan.runs.size() > most ? plan.runs.size() - most : 0;
  const uint64_t cheap_bytes = std::min(kShortRunsBytes, limits.copied_bytes);
  uint64_t done = 0;
  for (const uint32_t index : shortest_first(plan.runs)) {
    MappedRun& run = plan.runs[index];
    const bool cheap = run.length <= kShortRun && plan.copied_bytes + run.length <= cheap_bytes;
    if (done >= too_many && !cheap) break;
    run.copied = true;
    plan.copied_bytes += run.length;
    ++done;
  }
  for (const MappedRun& run : plan.runs) {
    if (!run.copied) plan.mapped_bytes += run.length;
  }
}

// Layers of which nothing is left to be mapped are not handed over.
void keep_used_layers(MappedPlan& plan) {
  std::vector<bool> used(plan.layers.size());
  for (const MappedRun& run : plan.runs) used[run.layer] = true;
  std::vector<uint32_t> place(plan.layers.size());
  std::vector<const Layer*> kept;
  for (size_t i = 0; i < used.size(); ++i) {
    place[i] = static_cast<uint32_t>(kept.size());
    if (used[i]) kept.push_back(plan.layers[i]);
  }
  for (MappedRun& run : plan.runs) run.layer = place[run.layer];
  plan.layers = std::move(kept);
}

}  // namespace

MappingLimits mapping_limits(uint64_t max_mappings) {
  MappingLimits limits;
  limits.mappings = max_mappings > 2 * kMarginOfMappings ? max_mappings - kMarginOfMappings : max_mappings / 2;
  // Half of them are runs (most_mapped()); beside those are as many as may be copied, and what is served.
  const uint64_t not_mapped = limits.copied_bytes / kBlockSize + limits.regions;
  limits.mappings = std::min(limits.mappings, 2 * (kMostPieces - not_mapped));
  return limits;
}

Result<MappingLimits> mapping_limits() {
  STASIS_ASSIGN(const uint64_t most, max_mappings_of_a_process());
  return mapping_limits(most);
}

MappedPlan plan_mapping(std::shared_ptr<const AddressSpace> memory, const IsWhole& is_whole,
                        const MappingLimits& limits) {
  MappedPlan plan = runs_of(std::move(memory));
  uint64_t held = 0;
  for (const MappedRun& run : plan.runs) held += run.length;
  serve_others(plan, is_whole);
  serve_small_layers(plan, limits);
  serve_excess(plan, limits);
  join_served(plan, limits);
  choose_copied(plan, limits);
  keep_used_layers(plan);
  plan.served_bytes = held - plan.mapped_bytes - plan.copied_bytes;
  return plan;
}

Result<Path> as_one_file(const MappedPlan& plan, FileSystem& fs, const Path& layers_dir) {
  if (plan.is_served()) return fail(Error(*plan.not_mapped));
  if (plan.layers.size() != 1) {
    return fail(Code::kFailedPrecondition,
                "the memory is in " + std::to_string(plan.layers.size()) + " layers and this VMM maps a single file",
                "compact the snapshot");
  }
  const Layer& layer = *plan.layers.front();
  if (layer.size() != plan.memory->size()) {
    return fail(Code::kFailedPrecondition, "the only layer is not as long as the memory", "compact the snapshot");
  }
  // What the memory has as zeros must be a hole: a layer may hold blocks that were zeroed since.
  STASIS_ASSIGN(const std::vector<Range> held, fs.data_ranges(layer.fd()));
  auto run = plan.runs.begin();
  for (const Range& data : held) {
    for (uint64_t at = data.offset; at < data.end(); at = run->end()) {
      while (run != plan.runs.end() && run->end() <= at) ++run;
      if (run == plan.runs.end() || run->offset > at || run->layer_offset != run->offset) {
        return fail(Code::kFailedPrecondition,
                    "the layer's file holds more than the memory (at " + std::to_string(at) + ")",
                    "compact the snapshot");
      }
    }
  }
  return snapshot::layer_data_path(layers_dir, layer.id());
}

}  // namespace stasis::pager
