// How a sandbox's memory comes back: mapped where it can be, else by userfaultfd (vmm.h). The reason is kept, for the
// sandbox's record.
#pragma once

#include <memory>
#include <string>

#include "pager/mapped_plan.h"
#include "snapshot/store.h"
#include "supervisor/protocol.h"

namespace stasis::supervisor {

struct RestoreWay {
  std::shared_ptr<const pager::MappedPlan> mapped;  // none: by userfaultfd
  Path file;                                        // for a VMM that maps one file
  std::string reason;
};

// What a sandbox's configuration asks for: kFailedPrecondition, with the reason, if that is not possible. Only a page
// server loads in the background.
Result<RestoreWay> choose_restore_way(const SandboxConfig& config, const snapshot::Store& store,
                                      std::shared_ptr<const snapshot::AddressSpace> memory, bool maps_one_file);

}  // namespace stasis::supervisor
