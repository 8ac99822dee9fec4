#include "vmm/contract/lab.h"

#include <signal.h>
#include <stdlib.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <set>

#include "base/process_memory.h"
#include "snapshot/flatten.h"
#include "snapshot/verified.h"

namespace stasis::vmm::contract {

using snapshot::AddressSpace;
using snapshot::BlockMap;

namespace {

// Of every other layer the longest runs: as many as a quarter of all pieces.
pager::MappedPlan plan_of_a_part(std::shared_ptr<const AddressSpace> memory,
                                 const std::function<bool(snapshot::LayerId)>& is_whole) {
  const auto layers = memory->map().layers();
  const auto is_mapped = [&](snapshot::LayerId id) {
    return is_whole(id) && (std::ranges::find(layers, id) - layers.begin()) % 2 == 0;
  };
  pager::MappingLimits limits{.copied_bytes = 16 << 10, .regions = 16};
  const auto extents = memory->map().extents();
  const auto pieces = std::ranges::count_if(extents, [](const auto& extent) { return !extent.is_zero(); });
  limits.mappings = 2 * (limits.regions + static_cast<uint64_t>(pieces) / 4);
  return pager::plan_mapping(std::move(memory), is_mapped, limits);
}

}  // namespace

TemporaryDirectory::TemporaryDirectory(const Path& parent) {
  std::string pattern = parent / "stasis-vmm-XXXXXX";
  if (::mkdtemp(pattern.data()) == nullptr) std::abort();
  path_ = pattern;
}

TemporaryDirectory::~TemporaryDirectory() { (void)remove_tree(real_file_system(), path_); }

Path directory_in_memory() { return exists(real_file_system(), "/dev/shm") ? "/dev/shm" : "/tmp"; }

std::optional<Error> Restored::page_failure() const {
  const std::lock_guard lock(failure->mutex);
  return failure->error;
}

Lab::Lab(Fixture& fixture, Path directory, Way way, bool prepared)
    : fixture_(fixture),
      directory_(std::move(directory)),
      way_(way),
      prepared_(prepared),
      store_(snapshot::Store::open(real_file_system(), directory_).value()) {
  (void)real_file_system().make_directory(directory_ / "scratch");
}

BlockMap Lab::nothing() const { return BlockMap::zeros(fixture_.memory_bytes()).value(); }

Result<SavedMemory> Lab::save(Vmm& vmm, Path& state) {
  state = directory_ / ("state" + std::to_string(++files_));
  saved_with_ = vmm.info();
  STASIS_ASSIGN(SavedMemory saved, vmm.save({state, directory_ / "scratch"}));
  STASIS_TRY(vmm.finish_save());
  return saved;
}

Result<Snapshot> Lab::take(Vmm& vmm, const BlockMap& parent, std::span<const Range> removed) {
  Path state;
  STASIS_ASSIGN(const SavedMemory saved, save(vmm, state));
  return capture(state, saved, parent, removed);
}

Result<Snapshot> Lab::capture(const Path& state, const SavedMemory& saved, const BlockMap& parent,
                              std::span<const Range> removed) {
  FileSystem& fs = real_file_system();
  STASIS_ASSIGN(const auto base, AddressSpace::open(fs, layers(), parent));
  STASIS_ASSIGN(auto result, snapshot::capture(fs, layers(), {saved.source, saved.candidates, removed}, *base));
  if (result.layer) snapshot::VerifiedLayers(store_).note_written(result.layer->id);
  return Snapshot{
      state, std::move(result.map), saved_with_, result.blocks_stored, result.blocks_zeroed, result.blocks_compared};
}

Result<Restored> Lab::restore(const Snapshot& snapshot, const std::function<void(Machine&)>& adjust) {
  Restored restored;
  STASIS_ASSIGN(restored.machine, fixture_.make_machine());
  if (adjust) adjust(restored.machine);
  if (prepared_) STASIS_TRY(restored.vmm().prepare({}));
  STASIS_ASSIGN(restored.memory, AddressSpace::open(real_file_system(), layers(), snapshot.memory));
  restored.failure = std::make_shared<Restored::Failure>();
  RestoreSpec spec{.state = snapshot.state, .saved_with = snapshot.saved_with};
  if (way_ != Way::kUffd) restored.status = plan_mapping(restored, spec);
  if (!restored.status) return restored;
  if (way_ != Way::kMapped) STASIS_TRY(serve_pages(restored, spec));
  restored.status = restored.vmm().restore(spec);
  return restored;
}

Status Lab::serve_pages(Restored& restored, RestoreSpec& spec) {
  pager::PageServerOptions options;
  options.on_failure = [failure = restored.failure](const Error& error) {
    const std::lock_guard lock(failure->mutex);
    failure->error = error;
    if (failure->vmm > 0) ::kill(failure->vmm, SIGKILL);
  };
  if (spec.mapped) options.served = spec.mapped->served;
  spec.uffd_socket = restored.machine.runtime_dir / "pages.sock";
  STASIS_ASSIGN(restored.pages, pager::PageServer::start(spec.uffd_socket, restored.memory, options));
  spec.on_started = [&restored](pid_t pid) -> Status {
    {
      const std::lock_guard lock(restored.failure->mutex);
      restored.failure->vmm = pid;
    }
    return restored.pages->expect_peer(pid);
  };
  return {};
}

Status Lab::plan_mapping(Restored& restored, RestoreSpec& spec) {
  const snapshot::VerifiedLayers verified(store_);
  const auto is_whole = [&](snapshot::LayerId id) { return verified.holds(id); };
  STASIS_ASSIGN(const pager::MappingLimits limits, pager::mapping_limits());
  pager::MappedPlan plan = way_ == Way::kPartly ? plan_of_a_part(restored.memory, is_whole)
                                                : pager::plan_mapping(restored.memory, is_whole, limits);
  if (way_ == Way::kMapped && plan.is_served()) return fail(Error(*plan.not_mapped));
  if (restored.vmm().maps_one_file()) {
    if (!pager::as_one_file(plan, real_file_system(), layers())) {
      STASIS_ASSIGN(BlockMap map, compacted(*restored.memory));
      STASIS_ASSIGN(auto memory, AddressSpace::open(real_file_system(), layers(), std::move(map)));
      plan = pager::plan_mapping(std::move(memory), is_whole, limits);
    }
    STASIS_ASSIGN(spec.mapped_file, pager::as_one_file(plan, real_file_system(), layers()));
  }
  if (way_ == Way::kPartly && (!plan.is_served() || plan.mapped_bytes == 0)) {
    return fail(Code::kInternal, "of this memory " + std::to_string(plan.mapped_bytes) + " bytes are mapped, " +
                                     std::to_string(plan.copied_bytes) + " copied, " +
                                     std::to_string(plan.served_bytes) + " served");
  }
  restored.mapped_file = spec.mapped_file;
  spec.mapped = std::make_shared<const pager::MappedPlan>(std::move(plan));
  return {};
}

Result<BlockMap> Lab::compacted(const AddressSpace& memory) {
  const auto id = snapshot::LayerId::random();
  STASIS_ASSIGN(const auto writer, snapshot::LayerWriter::create(real_file_system(), layers(), id, memory.size()));
  std::vector<snapshot::Change> changes;
  RateLimit limit;
  snapshot::Flattener flattener(memory, limit, snapshot::kHugePageSize);
  STASIS_TRY(flattener.run(0, [&](uint64_t offset, std::span<const std::byte> data) {
    changes.push_back({{offset, data.size()}, false});
    return writer->write(offset, data);
  }));
  STASIS_TRY(writer->finish());
  snapshot::VerifiedLayers(store_).note_written(id);
  return nothing().merge(id, changes);
}

Status Lab::compact(Snapshot& snapshot) {
  STASIS_ASSIGN(const auto memory, AddressSpace::open(real_file_system(), layers(), snapshot.memory));
  STASIS_ASSIGN(snapshot.memory, compacted(*memory));
  return {};
}

Status Lab::restore_without_pages(Machine& machine, const Path& state) {
  return machine.vmm->restore(
      {.state = state, .saved_with = saved_with_, .uffd_socket = machine.runtime_dir / "nobody.sock"});
}

Status Lab::damage_filled_page(const Snapshot& snapshot, Range filled, uint64_t seed) {
  std::set<std::vector<uint64_t>> wanted;
  for (uint64_t at = filled.offset; at < filled.end(); at += snapshot::kBlockSize) {
    wanted.insert(fixture_.filled_page(at / snapshot::kBlockSize, seed));
  }
  STASIS_ASSIGN(const auto memory, AddressSpace::open(real_file_system(), layers(), snapshot.memory));
  std::map<std::pair<std::string, uint64_t>, uint64_t> found;  // pages of the fill in each frame of a layer's file
  std::vector<uint64_t> page(snapshot::kBlockSize / sizeof(uint64_t));
  for (const auto& extent : snapshot.memory.extents()) {
    for (uint64_t at = 0; !extent.is_zero() && at < extent.length; at += snapshot::kBlockSize) {
      STASIS_TRY(memory->read(extent.offset + at, std::as_writable_bytes(std::span(page))));
      if (!wanted.contains(page)) continue;
      const Path file = snapshot::layer_data_path(layers(), extent.layer);
      const uint64_t frame = (extent.layer_offset + at) / snapshot::kFrameSize;
      if (++found[{file, frame}] == snapshot::kFrameSize / snapshot::kBlockSize) {
        return overwrite(file, frame * snapshot::kFrameSize + 100, "damage");
      }
    }
  }
  return fail(Code::kNotFound, "the guest's memory is scattered: no frame is all of the fill");
}

Status Lab::overwrite(const Path& file, uint64_t offset, std::string_view text) {
  FileSystem& fs = real_file_system();
  STASIS_ASSIGN(const UniqueFd readable, fs.open_read(file));
  STASIS_TRY(fs.set_mode(readable.get(), 0600));  // layers are read-only
  STASIS_ASSIGN(const UniqueFd writable, fs.open_write(file));
  return fs.write_at(writable.get(), offset, std::as_bytes(std::span(text)));
}

Status Lab::cut_short(const Path& file) {
  STASIS_TRY(overwrite(file, 0, ""));  // makes it writable
  STASIS_ASSIGN(const UniqueFd fd, real_file_system().open_write(file));
  return real_file_system().truncate(fd.get(), 0);
}

Status Lab::read_served(const Restored& machine, std::span<std::byte> out) {
  for (const pager::Region& region : machine.pages->regions()) {
    const MemorySource memory = MemorySource::of_process(machine.machine.vmm->pid(), region.host_address);
    STASIS_TRY(memory.read(real_file_system(), 0, out.subspan(region.offset, region.size)));
  }
  return {};
}

Status Lab::read_mapped_file(const Restored& machine, std::span<std::byte> out) {
  const pid_t vmm = machine.machine.vmm->pid();
  STASIS_ASSIGN(const UniqueFd file, real_file_system().open_read(machine.mapped_file));
  STASIS_ASSIGN(const uint64_t address, first_mapping_of(vmm, file.get()));
  return MemorySource::of_process(vmm, address).read(real_file_system(), 0, out);
}

Result<std::vector<std::byte>> Lab::memory_of(const Restored& machine, const SavedMemory& saved) const {
  std::vector<std::byte> bytes(fixture_.memory_bytes());
  if (way_ == Way::kUffd) {
    STASIS_TRY(read_served(machine, bytes));
  } else if (!machine.mapped_file.empty()) {
    STASIS_TRY(read_mapped_file(machine, bytes));
  } else {
    STASIS_TRY(saved.source.read(real_file_system(), 0, bytes));
  }
  return bytes;
}

Result<std::vector<std::byte>> Lab::content(const BlockMap& map, Range range) {
  STASIS_ASSIGN(const auto memory, AddressSpace::open(real_file_system(), layers(), map));
  std::vector<std::byte> bytes(range.length);
  STASIS_TRY(memory->read(range.offset, bytes));
  return bytes;
}

}  // namespace stasis::vmm::contract
