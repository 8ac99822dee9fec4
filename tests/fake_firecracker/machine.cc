#include "machine.h"

#include <csignal>

#include "../tiny_guest/commands.h"
#include "misbehave.h"
#include "state_file.h"
#include "uffd_backend.h"

namespace fake {
namespace {

using nlohmann::json;
using stasis::Code;
using stasis::fail;
using stasis::Result;
using stasis::Status;

constexpr uint64_t kKernelOffset = uint64_t{1} << 20;
constexpr uint64_t kKernelBytes = 64 * kPage;
constexpr uint64_t kKernelSeed = 0x5ea1;
// Where loading faults: the page of the VM generation, the clock page, a queue.
constexpr uint64_t kDevicePages[] = {kKernelOffset, TG_STATE_OFFSET, kKernelOffset + 40 * kPage};

std::string restore_failed(const std::string& why) {
  return "Load snapshot error: Failed to restore from snapshot: " + why;
}

void put_kernel(GuestMemory& memory) {
  for (uint64_t at = kKernelOffset; at < kKernelOffset + kKernelBytes; at += 8) {
    *reinterpret_cast<uint64_t*>(memory.at(at)) = tg_pattern(kKernelSeed, at);
  }
  memory.mark_written(kKernelOffset, kKernelBytes);
}

uint64_t memory_bytes(const json& config) { return config["machine"]["mem_size_mib"].get<uint64_t>() << 20; }

Status check_drives(const json& config) {
  for (const json& drive : config["drives"]) {
    const std::string path = drive["path_on_host"];
    if (stasis::exists(stasis::real_file_system(), path)) continue;
    return fail(Code::kInternal, restore_failed("Failed to build microVM from snapshot: Cannot restore devices: Error "
                                                "restoring block: Error manipulating the backing file: No such file or "
                                                "directory (os error 2) " +
                                                path));
  }
  return {};
}

Status override_interfaces(json& config, const json& overrides) {
  for (const json& entry : overrides) {
    bool found = false;
    for (json& interface : config["interfaces"]) {
      if (interface["iface_id"] != entry["iface_id"]) continue;
      interface["host_dev_name"] = entry["host_dev_name"];
      found = true;
    }
    if (!found)
      return fail(Code::kInternal, restore_failed("Failed to get snapshot state from file: Unknown Network Device."));
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<Machine>> Machine::boot(json config) {
  auto machine = std::make_unique<Machine>();
  machine->config_ = std::move(config);
  STASIS_ASSIGN(machine->memory_, GuestMemory::create(memory_bytes(machine->config_)));
  put_kernel(*machine->memory_);
  STASIS_TRY(machine->start_guest(true));
  return machine;
}

Result<std::unique_ptr<Machine>> Machine::load(const stasis::Path& state, const stasis::Path& backend,
                                               bool backend_is_file, const json& network_overrides) {
  auto machine = std::make_unique<Machine>();
  machine->installed_ = !backend_is_file;
  auto config = read_state_file(state);
  if (!config) {
    return fail(Code::kInternal, restore_failed("Failed to get snapshot state from file: " + config.error().message));
  }
  machine->config_ = std::move(*config);
  STASIS_TRY(override_interfaces(machine->config_, network_overrides));
  STASIS_ASSIGN(machine->memory_, GuestMemory::create(memory_bytes(machine->config_)));
  const Status there =
      backend_is_file ? machine->memory_->map_file(backend) : hand_over_memory(*machine->memory_, backend);
  if (!there) {
    return fail(Code::kInternal,
                restore_failed("Failed to load guest memory: Error creating guest memory from " +
                               std::string(backend_is_file ? "file: " : "uffd: ") + there.error().message));
  }
  STASIS_TRY(check_drives(machine->config_));
  if (backend_is_file && misbehaves("bus_error")) ::raise(SIGBUS);
  machine->fault_as_devices_do();
  STASIS_TRY(machine->start_guest(false));
  return machine;
}

void Machine::fault_as_devices_do() {
  for (const uint64_t offset : kDevicePages) {
    if (offset < memory_->bytes()) (void)*static_cast<volatile std::byte*>(memory_->at(offset));
  }
}

Status Machine::start_guest(bool running) {
  STASIS_ASSIGN(stasis::Event changed, stasis::Event::create());
  guest_ = std::make_unique<Guest>(*memory_, running, std::move(changed));
  return {};
}

Status Machine::create_snapshot(bool full, const stasis::Path& state, const stasis::Path& memory_file) {
  const std::lock_guard lock(guest_->step());
  if (full || !misbehaves("create_no_state")) STASIS_TRY(write_state_file(state, config_));
  if (!full && misbehaves("create_dies")) ::raise(SIGKILL);
  return write_memory(full, memory_file);
}

// Opened as Firecracker does: a file of the right size that is there already keeps its content.
Status Machine::write_memory(bool full, const stasis::Path& path) {
  stasis::FileSystem& fs = stasis::real_file_system();
  auto created = fs.create(path);
  if (!created && created.error().code != Code::kAlreadyExists) return fail(std::move(created).error());
  if (!created) created = fs.open_write(path);
  if (!created) return fail(std::move(created).error());
  const int fd = created->get();
  STASIS_ASSIGN(const stasis::FileInfo info, fs.info(path));
  if (info.size != memory_->bytes()) STASIS_TRY(fs.truncate(fd, 0));
  if (!full && misbehaves("create_short")) return fs.truncate(fd, memory_->bytes() / 2);
  STASIS_TRY(fs.truncate(fd, memory_->bytes()));
  if (!full && misbehaves("create_fails")) {
    memory_->forget_written();
    return fail(Code::kInternal, "Cannot write memory file: No space left on device (os error 28)");
  }
  STASIS_TRY(full ? memory_->write_full(fd) : memory_->write_diff(fd, installed_));
  return fs.sync(fd);
}

}  // namespace fake
