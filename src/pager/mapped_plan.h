// The plan of a mapped restore: which bytes of guest memory are mapped, private, from which layer's file, which are
// copied in, which a page server serves, and what stays anonymous memory, which is zeros. No checksum can be checked at
// a fault of mapped memory, so only layers are mapped that this host knows to be whole (snapshot/verified.h) and that
// keep their blocks as they are (Layer::can_be_mapped). What the other layers hold is served.
//
// The number of mappings of a process is limited: the longest runs are mapped, the shortest copied, up to a limit of
// its own, and what is left between is served. The regions that are served are few: the shortest gaps between them,
// zeros and runs that could be mapped, are served too. A layer that has been mapped may be removed from the store (its
// file lives on as long as the mapping), but must never be changed.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "snapshot/layer.h"

namespace stasis::pager {

// A run of guest memory that is contiguous in a layer. Bytes; multiples of the block size.
struct MappedRun {
  uint64_t offset = 0;  // in guest memory
  uint64_t length = 0;
  uint64_t layer_offset = 0;
  uint32_t layer = 0;   // index in MappedPlan::layers
  bool copied = false;  // read from the layer into anonymous memory instead of mapped
  uint64_t end() const { return offset + length; }
  friend bool operator==(const MappedRun&, const MappedRun&) = default;
};

struct MappedPlan {
  std::shared_ptr<const snapshot::AddressSpace> memory;  // holds the layers open
  std::vector<const snapshot::Layer*> layers;            // those that are mapped or copied from
  std::vector<MappedRun> runs;                           // sorted, disjoint
  std::vector<Range> served;        // sorted, disjoint, none of it in a run; what is in neither is zeros
  std::optional<Error> not_mapped;  // why anything is served that layers hold, with the remedy
  uint64_t mapped_bytes = 0;
  uint64_t copied_bytes = 0;
  uint64_t served_bytes = 0;  // that layers hold; `served` may have zeros too
  bool is_served() const { return !served.empty(); }
};

struct MappingLimits {
  uint64_t mappings = 0;                       // that the guest's memory may cost, zeros between the runs included
  uint64_t layers = 256;                       // each is a descriptor for a moment
  uint64_t copied_bytes = uint64_t{32} << 20;  // more would cost more than it saves
  uint64_t regions = 256;                      // that are served; not 0
};

// Of a plan within these limits: as many runs and served regions as QEMU can be told of (vmm/qemu/mapping_message.h).
inline constexpr uint64_t kMostPieces = 262'144;
// Where a process may have so many mappings: less what the VMM itself needs with a good margin.
MappingLimits mapping_limits(uint64_t max_mappings);
// What this host allows a process (vm.max_map_count).
Result<MappingLimits> mapping_limits();

// As much is mapped as can be. `is_whole` says whether this host knows a layer to be.
MappedPlan plan_mapping(std::shared_ptr<const snapshot::AddressSpace> memory,
                        const std::function<bool(snapshot::LayerId)>& is_whole, const MappingLimits& limits);

// For a VMM that can only map a memory which is one file: that file, if the only layer of the plan holds all of the
// memory, and holes where the memory is zeros. Else kFailedPrecondition says why not.
Result<Path> as_one_file(const MappedPlan& plan, FileSystem& fs, const Path& layers_dir);

}  // namespace stasis::pager
