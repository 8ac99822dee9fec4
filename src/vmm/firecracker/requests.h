// The requests that the driver sends: bodies in the form of Firecracker's API (its file firecracker.yaml, versions 1.13
// to 1.16). Unknown fields are refused by Firecracker, so each has exactly these.
#pragma once

#include <string>
#include <vector>

#include "vmm/firecracker/api_client.h"
#include "vmm/vmm.h"

namespace stasis::vmm {

enum class SnapshotType { kFull, kDiff };

// Everything between start and InstanceStart, in order.
std::vector<ApiRequest> boot_requests(const MachineConfig& config, const BootSpec& spec);
ApiRequest start_request();
ApiRequest state_request(bool paused);
ApiRequest create_request(SnapshotType type, const Path& state, const Path& memory);
ApiRequest load_request(const MachineConfig& config, const RestoreSpec& spec);
ApiRequest version_request();

}  // namespace stasis::vmm
