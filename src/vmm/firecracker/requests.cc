#include "vmm/firecracker/requests.h"

#include <nlohmann/json.hpp>

namespace stasis::vmm {
namespace {

using nlohmann::json;

constexpr const char* kDiskId = "disk";
constexpr const char* kInterfaceId = "eth0";

// The serial port is the console; a reboot or a panic ends the process; no probing for a keyboard that is not there.
constexpr const char* kCommandLine = "console=ttyS0 reboot=k panic=1 i8042.noaux i8042.nomux i8042.dumbkbd";

// A path that is no UTF-8 cannot be said in JSON: it becomes one that Firecracker will not find.
std::string text_of(const json& body) { return body.dump(-1, ' ', false, json::error_handler_t::replace); }

ApiRequest put(std::string target, const json& body) { return {ApiMethod::kPut, std::move(target), text_of(body)}; }

ApiRequest machine_request(const MachineConfig& config) {
  return put("/machine-config", {{"vcpu_count", config.shape.vcpus},
                                 {"mem_size_mib", config.shape.memory_mib},
                                 {"smt", false},
                                 {"track_dirty_pages", true}});
}

ApiRequest boot_source_request(const BootSpec& spec) {
  const std::string space = spec.command_line.empty() ? "" : " ";
  json body{{"kernel_image_path", spec.vmlinux.string()}, {"boot_args", kCommandLine + space + spec.command_line}};
  if (!spec.initrd.empty()) body["initrd_path"] = spec.initrd.string();
  return put("/boot-source", body);
}

// Not the "root device": that would add a root= of Firecracker's own to the command line. Writeback offers flushes to
// the guest, so that its fsync means something.
ApiRequest disk_request(const Path& disk) {
  return put(std::string("/drives/") + kDiskId, {{"drive_id", kDiskId},
                                                 {"path_on_host", disk.string()},
                                                 {"is_root_device", false},
                                                 {"is_read_only", false},
                                                 {"cache_type", "Writeback"}});
}

ApiRequest network_request(const MachineConfig& config) {
  json body{{"iface_id", kInterfaceId}, {"host_dev_name", config.tap}};
  if (!config.mac.empty()) body["guest_mac"] = config.mac;
  return put(std::string("/network-interfaces/") + kInterfaceId, body);
}

}  // namespace

// No balloon device, on purpose: a booted VM has no page server that would hear of pages given back, and a Diff
// snapshot does not name them, so they would come back with their old content.
std::vector<ApiRequest> boot_requests(const MachineConfig& config, const BootSpec& spec) {
  std::vector<ApiRequest> requests{machine_request(config), boot_source_request(spec)};
  if (!config.disk.empty()) requests.push_back(disk_request(config.disk));
  if (!config.tap.empty()) requests.push_back(network_request(config));
  requests.push_back(put("/entropy", json::object()));
  return requests;
}

ApiRequest start_request() { return put("/actions", {{"action_type", "InstanceStart"}}); }

ApiRequest state_request(bool paused) {
  return {ApiMethod::kPatch, "/vm", text_of({{"state", paused ? "Paused" : "Resumed"}})};
}

ApiRequest create_request(SnapshotType type, const Path& state, const Path& memory) {
  return put("/snapshot/create", {{"snapshot_type", type == SnapshotType::kFull ? "Full" : "Diff"},
                                  {"snapshot_path", state.string()},
                                  {"mem_file_path", memory.string()}});
}

ApiRequest load_request(const MachineConfig& config, const RestoreSpec& spec) {
  const bool mapped = spec.mapped != nullptr;
  const Path& memory = mapped ? spec.mapped_file : spec.uffd_socket;
  json body{{"snapshot_path", spec.state.string()},
            {"mem_backend", {{"backend_type", mapped ? "File" : "Uffd"}, {"backend_path", memory.string()}}},
            {"track_dirty_pages", true},
            {"resume_vm", false}};
  // The state names the interface of the sandbox that was saved; a clone's may be called otherwise.
  if (!config.tap.empty()) {
    body["network_overrides"] = json::array({{{"iface_id", kInterfaceId}, {"host_dev_name", config.tap}}});
  }
  return put("/snapshot/load", body);
}

ApiRequest version_request() { return {ApiMethod::kGet, "/version", ""}; }

}  // namespace stasis::vmm
