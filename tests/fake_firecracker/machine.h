// The double's virtual machine: its configuration, memory, guest, and the snapshots of it.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "guest.h"

namespace fake {

class Machine {
 public:
  // Memory with a deterministic content, guest running.
  static stasis::Result<std::unique_ptr<Machine>> boot(nlohmann::json config);
  // From a state file, memory by userfaultfd from whoever listens at `backend`, or mapped from that file; guest paused.
  // Errors are in Firecracker's words.
  static stasis::Result<std::unique_ptr<Machine>> load(const stasis::Path& state, const stasis::Path& backend,
                                                       bool backend_is_file, const nlohmann::json& network_overrides);

  Guest& guest() { return *guest_; }
  stasis::Status create_snapshot(bool full, const stasis::Path& state, const stasis::Path& memory_file);

 private:
  stasis::Status write_memory(bool full, const stasis::Path& file);
  stasis::Status start_guest(bool running);
  void fault_as_devices_do();

  nlohmann::json config_;
  bool installed_ = false;  // memory came page by page: a Diff counts that too
  std::optional<GuestMemory> memory_;
  std::unique_ptr<Guest> guest_;
};

}  // namespace fake
