// How a sandbox's memory comes back: mapped where all of it can be; partly mapped, and the rest by userfaultfd, where
// at least half can be; else by userfaultfd (vmm.h). The reason is kept, for the sandbox's record.
#pragma once

#include <memory>
#include <string>

#include "pager/mapped_plan.h"
#include "snapshot/store.h"
#include "supervisor/protocol.h"

namespace stasis::supervisor {

struct RestoreWay {
  std::shared_ptr<const pager::MappedPlan> mapped;  // none: all of it by userfaultfd
  Path file;                                        // for a VMM that maps one file
  std::string reason;

  const char* method() const;  // kRestoreUffd, kRestoreMapped, kRestorePartly
  // There is something for a page server to serve.
  bool is_served() const { return !mapped || mapped->is_served(); }
};

// What a sandbox's configuration asks for: kFailedPrecondition, with the reason, if that is not possible; a memory that
// is asked for mapped is never served in part. Only a page server loads in the background.
Result<RestoreWay> choose_restore_way(const SandboxConfig& config, const snapshot::Store& store,
                                      std::shared_ptr<const snapshot::AddressSpace> memory, bool maps_one_file);

}  // namespace stasis::supervisor
