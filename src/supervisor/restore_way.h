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

// `asked`: kRestoreUffd, kRestoreMapped, or empty for the best that is possible. kFailedPrecondition, with the reason,
// if what was asked for is not.
Result<RestoreWay> choose_restore_way(const std::string& asked, const snapshot::Store& store,
                                      std::shared_ptr<const snapshot::AddressSpace> memory, bool maps_one_file);

}  // namespace stasis::supervisor
