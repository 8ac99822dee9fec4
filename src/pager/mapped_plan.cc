#include "pager/mapped_plan.h"

#include <algorithm>
#include <numeric>
#include <string>

#include "base/process_memory.h"

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

Status require_mappable(const AddressSpace& memory, const std::function<bool(LayerId)>& is_whole,
                        const MappingLimits& limits) {
  const auto layers = memory.map().layers();
  if (layers.size() > limits.layers) {
    return fail(Code::kFailedPrecondition,
                "the memory is in " + std::to_string(layers.size()) + " layers, of which " +
                    std::to_string(limits.layers) + " can be mapped",
                "compact the snapshot");
  }
  for (const LayerId id : layers) {
    if (!memory.layer(id)->can_be_mapped()) {
      return fail(Code::kFailedPrecondition, "layer " + id.text() + " is compressed", "compact the snapshot");
    }
    if (!is_whole(id)) {
      return fail(Code::kFailedPrecondition,
                  "layer " + id.text() + " has been neither written nor verified by this host since it booted",
                  "verify the snapshot");
    }
  }
  return {};
}

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

// Shortest first: the short ones as long as they are little, and whatever is too much for the limit. A mapping splits
// the anonymous memory around it, so it counts twice.
void choose_copied(MappedPlan& plan, const MappingLimits& limits) {
  std::vector<uint32_t> by_length(plan.runs.size());
  std::iota(by_length.begin(), by_length.end(), 0);
  std::sort(by_length.begin(), by_length.end(),
            [&](uint32_t a, uint32_t b) { return plan.runs[a].length < plan.runs[b].length; });
  const uint64_t most = limits.mappings / 2;
  const uint64_t too_many = plan.runs.size() > most ? plan.runs.size() - most : 0;
  uint64_t done = 0;
  for (const uint32_t index : by_length) {
    MappedRun& run = plan.runs[index];
    const bool cheap = run.length <= kShortRun && plan.copied_bytes + run.length <= kShortRunsBytes;
    if (done >= too_many && !cheap) break;
    run.copied = true;
    plan.copied_bytes += run.length;
    ++done;
  }
  for (const MappedRun& run : plan.runs) {
    if (!run.copied) plan.mapped_bytes += run.length;
  }
}

}  // namespace

Result<MappingLimits> mapping_limits() {
  STASIS_ASSIGN(const uint64_t most, max_mappings_of_a_process());
  MappingLimits limits;
  limits.mappings = most > 2 * kMarginOfMappings ? most - kMarginOfMappings : most / 2;
  return limits;
}

Result<MappedPlan> plan_mapping(std::shared_ptr<const AddressSpace> memory,
                                const std::function<bool(LayerId)>& is_whole, const MappingLimits& limits) {
  STASIS_TRY(require_mappable(*memory, is_whole, limits));
  MappedPlan plan = runs_of(std::move(memory));
  choose_copied(plan, limits);
  if (plan.copied_bytes > limits.copied_bytes) {
    return fail(Code::kFailedPrecondition,
                "the memory is in " + std::to_string(plan.runs.size()) +
                    " pieces; a process may have too few mappings, " + mebibytes(plan.copied_bytes) +
                    " would have to be copied",
                "compact the snapshot, or raise vm.max_map_count");
  }
  return plan;
}

Result<Path> as_one_file(const MappedPlan& plan, FileSystem& fs, const Path& layers_dir) {
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
